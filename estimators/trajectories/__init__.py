"""Derivatives through a whole training: its steps taken backwards, each differentiated exactly."""
