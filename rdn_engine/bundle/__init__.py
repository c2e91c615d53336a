"""The engine directory: manifest, files, and what a configuration wants of them."""
