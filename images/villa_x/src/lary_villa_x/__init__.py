"""The latent action model of villa-X."""
