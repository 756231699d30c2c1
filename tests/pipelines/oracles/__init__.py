"""Values that programs of others gave, and the scripts that asked them."""
