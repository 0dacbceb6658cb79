"""Values of training examples from retraining: Shapley, Beta-Shapley, Banzhaf, groups, memorization, and exact kNN-Shapley."""
