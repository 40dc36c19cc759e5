"""From a request to jobs. Starts nothing."""
