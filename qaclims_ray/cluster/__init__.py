"""The Ray shell: one driver per stage; the only place that imports Ray."""
