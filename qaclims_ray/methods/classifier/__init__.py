"""The image-level classifier: the baseline CAM and the others' start."""
