"""The journal of a study, and the results derived from it."""
