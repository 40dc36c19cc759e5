"""The Wan 2.2 video autoencoder as a frame encoder."""
