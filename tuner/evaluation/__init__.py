"""Trained models outside of their study: judged on other audio, exported for other programs."""
