"""Splits that can be trusted: groups, assignment, audit of what leaks."""
