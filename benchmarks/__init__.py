"""What was measured and drawn for docs/results: a command each."""
