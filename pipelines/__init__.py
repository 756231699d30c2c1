"""From audio files to trustworthy feature sets."""
