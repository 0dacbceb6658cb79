"""Runs that were made elsewhere, in the formats of the field."""
