"""Training runs and studies: recipes and matrices of trainings, extractions and probes as one plan."""
