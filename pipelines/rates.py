"""The sample rates of audio and features, alone in a file so that decoders start fast."""

MIN_RATE_HZ = 4_000
MAX_RATE_HZ = 384_000
