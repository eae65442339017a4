"""Frozen CLIP: weights, mask tokens, prompted texts."""
