"""Parts of the benchmark of carbon: shifting, pauses, exact resumes, and budgets in grams."""
