"""Accuracy of what was trained, and what training costs."""
