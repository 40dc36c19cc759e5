"""From jobs to outcomes."""
