"""Layouts of data sets; ``pipelines.sources.catalog`` has the table."""
