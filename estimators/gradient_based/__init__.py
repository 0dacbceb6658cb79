"""Estimators that look at the gradients of reference models: one file each."""
