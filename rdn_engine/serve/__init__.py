"""Many live streams on one detector: order, fairness, bounds, and an account of every frame."""
