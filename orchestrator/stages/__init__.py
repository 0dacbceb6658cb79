"""The stages of a sweep, in their order: plan, retrain, attribute, score, report; and what looks at one: status, verify, export.

Every stage reads what the one before it left on disk, and can be run again on its own.
"""
