"""Accuracy of detections on annotated videos, in named protocols; docs/evaluation.md defines every figure."""
