"""Gradients of single examples, their projections, and models as functions of their parameters."""
