"""Trustworthy splits: groups, assignment, leakage audit."""
