"""QAPE: questions, answers and the corpus table (QA-CLIMS 3.2)."""
