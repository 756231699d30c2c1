"""One trial's learning: batches in, weights and metrics out. No Ray, no MLflow."""
