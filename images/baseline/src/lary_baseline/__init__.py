"""Models that need no weights: the floor of every table."""
