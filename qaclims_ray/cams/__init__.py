"""From a trained network to class activation maps on disk."""
