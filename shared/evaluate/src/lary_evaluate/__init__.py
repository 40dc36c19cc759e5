"""Policies in closed loop, from a request to a table: what `lary-orch evaluate` does."""
