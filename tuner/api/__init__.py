"""The public Python API, for notebooks and programs; `tuner` exports its names."""
