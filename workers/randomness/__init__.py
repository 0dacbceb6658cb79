"""Where a run's randomness comes from, and what is drawn with it."""
