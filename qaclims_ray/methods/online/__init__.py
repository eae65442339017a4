"""A final network that makes its own masks while it learns."""
