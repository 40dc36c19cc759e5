"""The one extract loop: decode -> preprocess -> encode -> store, the same for every model image."""

from lary_worker.model import Latents, Model, Weights

__all__ = ["Latents", "Model", "Weights"]
