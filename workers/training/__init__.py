"""Training one model, the plain way."""
