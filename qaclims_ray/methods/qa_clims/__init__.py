"""QA-CLIMS: regions contrasted with adapted answers."""
