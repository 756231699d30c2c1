"""Search without training: known learning curves, replayed in simulated time."""
