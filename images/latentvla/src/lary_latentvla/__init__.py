"""Two-stage latent actions, a tokenizer of actions, and policies that are supervised by them."""
