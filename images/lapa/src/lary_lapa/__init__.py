"""LAQ models over five kinds of frame features, their backbones alone, UniVLA, and the FLUX.2 autoencoder."""
