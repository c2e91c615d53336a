"""Accuracy of a detector on annotated videos, in named protocols; docs/evaluation.md defines every figure."""
