"""What `ray job submit` runs: each is one verb of the command."""
