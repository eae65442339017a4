"""Metrics: confusion matrices, threshold sweeps, bootstrap, separation."""
