"""Data sets on disk or at a URI, read as a table of tracks."""
