"""The training loop and its tasks, free of Ray."""
