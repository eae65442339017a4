"""The Ray shell: session, shards, workers, tasks, trials, searches; the only place that imports Ray."""
