"""Live streams from real servers: what faults do to them, and what they hold after a long time."""
