"""What there is to choose from, drawn from the code itself: estimators, designs, tasks, with their options."""
