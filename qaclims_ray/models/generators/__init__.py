"""Mask generators: networks whose maps are the CAMs."""
