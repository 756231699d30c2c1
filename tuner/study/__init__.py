"""The life of a study and its stages."""
