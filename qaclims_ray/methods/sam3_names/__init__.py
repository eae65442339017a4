"""SAM 3 asked by the names of the classes that an image is tagged with: a reference row, trained on masks."""
