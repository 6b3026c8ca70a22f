"""What is done to patients' data as values, what it costs, and the budgets it is held against."""
