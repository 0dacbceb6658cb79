"""Compiled kernels that train a small model without leaving the cache."""
