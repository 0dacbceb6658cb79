"""Many LASSOs over one shared binary design: t queries, m runs, n examples, from shared sufficient statistics.

For every query: minimize over b and w  1/(2m) ||y - b - Xw||^2 + lambda ||w||_1 + ridge/2 ||w||^2.
"""
