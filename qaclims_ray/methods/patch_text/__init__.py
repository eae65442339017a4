"""Training-free seeds: patches of a frozen CLIP against texts."""
