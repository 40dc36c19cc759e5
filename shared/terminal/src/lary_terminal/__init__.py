"""What the LAM bench shows on a terminal: tables at any width, running jobs."""
