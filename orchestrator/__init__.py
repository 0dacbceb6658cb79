"""Decide what to train, run it on Ray, keep what comes back, and turn it into attributions, scores and a report."""
