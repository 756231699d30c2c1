"""Audio files to feature sets that can be trusted."""
