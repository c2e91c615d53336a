"""Video in and out. Needs PyAV; nothing below imports it."""
