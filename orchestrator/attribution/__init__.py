"""What estimators get to see of a sweep, and where they work."""
