"""Audio files to finished feature sets: ``python -m pipelines.build``."""
