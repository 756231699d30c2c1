"""What this machine lacks for a study: ``python -m tuner.doctor``."""
