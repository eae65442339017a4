"""The miniature world: drawn scenes, true answers, and the pretraining of its own tiny CLIP and VQA."""
