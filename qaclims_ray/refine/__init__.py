"""From CAMs to pseudo masks."""
