"""Confusion matrices, threshold sweeps, figures and the report."""
