"""Programs that people would take instead of this one, on the same recordings."""
