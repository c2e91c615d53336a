"""Data sets: annotated videos."""
