"""How large the FLUX.2 encoder is. Free of torch, which decode processes do without."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flux2Size:
    """The encoder of the released autoencoder; names as in the original code."""

    ch: int = 128
    ch_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    z_channels: int = 32
