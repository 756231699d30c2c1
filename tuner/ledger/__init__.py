"""The journal of a study, and what is read from it."""
