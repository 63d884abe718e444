"""Parts of the benchmark of carbon: shifting, deadlines and budgets in grams."""
