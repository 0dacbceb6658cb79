"""Per-example gradients, curvature, projections and damped solves: what the gradient-based estimators share."""
