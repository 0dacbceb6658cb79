"""Uses of attributions, each verified by retraining in sweeps inside the sweep."""
