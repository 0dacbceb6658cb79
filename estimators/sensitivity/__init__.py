"""The memory-perturbation equation: how a model answers to its examples, as prediction error times prediction variance."""
