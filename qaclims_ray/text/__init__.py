"""From the corpus to CLIP prompts and their text bank."""
