"""How data sets lie on disk: one module for each layout, rows of a listing out of each."""
