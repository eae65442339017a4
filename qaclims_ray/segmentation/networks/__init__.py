"""Architectures of final networks."""
