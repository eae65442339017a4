"""IRN: confident seeds, affinity network, random walk."""
