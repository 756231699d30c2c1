"""A study for people: in the terminal, and as a report page with figures and tables."""
