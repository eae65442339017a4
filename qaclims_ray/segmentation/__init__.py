"""Final networks, trained on pseudo masks."""
