"""Estimators of other libraries, on the same reference models: one file each, found where the library is installed."""
