"""Whole frames: streams of this engine and of others, side by side."""
