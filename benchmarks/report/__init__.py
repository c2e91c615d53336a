"""Committed results as tables and pictures."""
