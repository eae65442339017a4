"""VQA models that answer the questions."""
