"""Speed, measured against peers and limits in the same rounds; each prints JSON."""
