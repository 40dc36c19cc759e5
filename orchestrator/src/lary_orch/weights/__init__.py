"""Weights: found, verified, fetched, converted."""
