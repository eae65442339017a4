"""Raw data sets to a manifest, images to tensors, artefacts on disk."""
