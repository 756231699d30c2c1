"""Layouts of data sets on disk: one module per layout, each of which returns a catalog."""
