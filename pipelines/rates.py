"""Lowest and highest sample rate, in a file of their own so that decoders start fast."""

MIN_RATE_HZ = 4_000
MAX_RATE_HZ = 384_000
