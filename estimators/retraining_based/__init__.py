"""Estimators that learn from retrained models: one file each."""
