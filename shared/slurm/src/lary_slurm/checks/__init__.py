"""Checks of `lary-orch doctor` on a cluster: one a file."""
