"""What a sweep will take, and what it will tell."""
