"""Presentation of a study: in the terminal, and as a report page with figures and tables."""
