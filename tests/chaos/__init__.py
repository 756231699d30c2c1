"""Random kills of a small study's processes, and what must hold afterwards."""
