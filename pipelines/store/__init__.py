"""Feature sets on disk: format, atomic commit, verification."""
