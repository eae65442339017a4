"""Ways to get CAMs, one folder each; what several share lies beside them."""
