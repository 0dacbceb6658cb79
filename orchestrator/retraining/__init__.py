"""What is left to train: counted, mended, cut into jobs."""
