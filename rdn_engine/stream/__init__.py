"""One video's order, epochs and dials, on any machine."""
