"""Audio files in, feature sets out."""
