"""What the estimators of values share: gains along permutations, the utility, weights of coalition sizes, intervals."""
