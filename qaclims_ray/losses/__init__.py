"""The papers' losses as pure functions."""
