"""CAMs that were made elsewhere."""
