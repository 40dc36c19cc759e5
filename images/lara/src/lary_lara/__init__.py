"""Moto's latent motion tokenizer and LARA's joint stage: trained here, and read by `extract`."""
