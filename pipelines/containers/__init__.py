"""What files are and hold by their bytes alone: walks over containers, without a decoder."""
