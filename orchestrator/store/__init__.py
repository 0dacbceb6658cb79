"""What is kept of a sweep, and when it counts: the one place that writes a sweep's folder (docs/store.md)."""
