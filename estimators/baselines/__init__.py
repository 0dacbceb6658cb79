"""What every estimator must beat: answers that look at no training."""
