"""CLIMS: regions matched with class names and fixed background texts."""
