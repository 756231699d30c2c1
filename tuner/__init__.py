"""Search, training, tracking and prediction of audio classifiers."""
