"""What `ray job submit` runs: parse, call one driver, print."""
