"""Checkpoints of trainees: `config.json`, what two of one kind must share, tensors that one side lacks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from lary_schema.base import ContractError, Document, WeightsError
from lary_schema.training import CONFIG_FILE, Recipe
from lary_worker.checkpoints import State, load_strict, read_config

from lary_parts.settings import PIXELS, EncoderSettings, Quantiser

if TYPE_CHECKING:
    from lary_parts.pair_network import PairNetwork
    from lary_parts.quantiser import VectorQuantiser

D = TypeVar("D", bound=Document)
P = TypeVar("P", bound="PairConfig")

_COUNTERS = ("started", "unused_steps", "cluster_size", "cluster_sum")
_FREE_QUANTISER = ("order", "beta", "start", "continuous_steps", "restart", "decay")
"""How a codebook is trained: it may differ between a training and the one that it goes on from."""


class PairConfig(Document):
    """`config.json` of what reads pairs of frames. Subclasses add the network's sizes."""

    format: int = 1
    trainee: str
    recipe: str
    dt: int | None
    """Of clips: frames between the two of a pair."""
    pixels: dict[str, list[float]]
    """`mean` and `std` per channel of pixels in [0, 1], as the pixel convention says them."""

    @property
    def settings(self) -> EncoderSettings:
        raise NotImplementedError


def pair_fields(recipe: Recipe, settings: EncoderSettings) -> dict[str, object]:
    """The fields of a `PairConfig` itself."""
    pixels = PIXELS[settings.pixel_convention]
    return {"trainee": recipe.trainee, "recipe": recipe.key, "dt": recipe.dt, "pixels": pixels}


def read_document(folder: Path, kind: type[D]) -> D:
    """`config.json` of a checkpoint's folder. Raises WeightsError where it is missing or not valid."""
    path = folder / CONFIG_FILE
    try:
        return kind.parse(read_config(path), str(path))
    except WeightsError:
        raise
    except ContractError as error:
        raise WeightsError(str(error)) from None


def read_pair_config(folder: Path, kind: type[P]) -> P:
    """As `read_document`; raises WeightsError also where the file contradicts itself."""
    config = read_document(folder, kind)
    convention = config.settings.pixel_convention
    if config.pixels != PIXELS[convention]:
        raise WeightsError(
            f"{folder / CONFIG_FILE}: pixels {config.pixels} are not those of pixel_convention {convention} "
            f"({PIXELS[convention]}); the file was changed"
        )
    return config


def require_same(folder: Path, found: Document, wanted: Document, free: Iterable[str]) -> None:
    """Raises WeightsError naming what differs: settings, but for `free` ones and for how a codebook is trained."""
    one, other = _fixed(found, free), _fixed(wanted, free)
    differing = [f"{name} {one[name]}, here {other[name]}" for name in one if one[name] != other[name]]
    if differing:
        raise WeightsError(f"{folder}: was trained otherwise than this recipe says: {'; '.join(differing)}")


def _fixed(config: Document, free: Iterable[str]) -> dict[str, object]:
    flat = {name: value for name, value in config.model_dump().items() if name not in set(free)}
    quantiser = Quantiser.model_validate(flat.pop("quantiser")).model_dump()
    return flat | {f"quantiser.{name}": v for name, v in quantiser.items() if name not in _FREE_QUANTISER}


def fit_counters(quantiser: VectorQuantiser, state: State, prefix: str) -> None:
    """Change `state` where it has counters of training that `quantiser` has not, or lacks some: a codebook from a
    file has started."""
    wanted = quantiser.state_dict()
    for name in _COUNTERS:
        if name not in wanted:
            state.pop(prefix + name, None)
        elif prefix + name not in state:
            state[prefix + name] = torch.ones_like(wanted[name]) if name == "started" else wanted[name].clone()


def load_kept(
    network: PairNetwork, state: State, where: Path | str, *, skippable: tuple[str, ...] = (), own: tuple[str, ...] = ()
) -> None:
    """Strictly, but for tensors that a file may hold beyond them, and for those that the network has already.

    The latter are its frozen ones and those under the prefixes `own`. What trains goes on training.
    """
    known = (*network.frozen, *own)
    mine = {name: tensor for name, tensor in network.state_dict().items() if name.startswith(known)}
    trains = {name: p.requires_grad for name, p in network.named_parameters()}
    read = {name: tensor for name, tensor in state.items() if not name.startswith(known)}
    load_strict(network, read | mine, where, skippable=skippable)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(trains[name])
