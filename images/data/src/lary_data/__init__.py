"""Data tools: what is done to media, CSVs and latents before and after the bench runs."""
