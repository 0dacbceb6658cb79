"""Curvature of the training loss, and damped solves with it."""
