"""Where audio comes from: data sets as they lie on disk or at a URI, as a table of tracks."""
