"""`python -m lary_latentvla.released`: a released file of UniVLA or P2T -> a checkpoint folder of this project.

The file is first converted (`lary-orch weights convert`), so nothing is unpickled here. Files of stage 1 from before
and after 2025-08-21 have equal names and other meaning: the decoder gets states that went through the encoder of the
codes, or the text's own. Which one a file is cannot be seen in it, so it has to be said; it stands in `config.json`,
and thereby in every fingerprint.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from lary_parts.encoders import FrameEncoder
from lary_schema.atomic import publish_bytes, publish_text
from lary_schema.base import WeightsError, file_sha256, fingerprint
from lary_schema.training import CONFIG_FILE, MODEL_FILE, Recipe
from lary_worker.checkpoints import State, read_state
from safetensors.torch import save

from lary_latentvla.text import T5_WIDTH, TextEncoder
from lary_latentvla.univla_checkpoint import config_document, load_released
from lary_latentvla.univla_facts import UnivlaConfig
from lary_latentvla.univla_network import UnivlaLam

HEAD_WIDTH = 64
"""Numbers of one attention head, in the released sizes: 768 / 12."""
SIZE, PATCH = 224, 14
States = Literal["text", "encoded"]


class _Frames(FrameEncoder):
    """What stands for the frozen encoder of frames: its sizes alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.tokens, self.width = (SIZE // PATCH) ** 2, width


class _Text(TextEncoder):
    """What stands for T5."""

    width = T5_WIDTH


def read_released(path: Path, states: States | None) -> tuple[UnivlaLam, UnivlaConfig]:
    """The network of a released file, loaded strictly, its sizes read from the shapes.

    `states` says what the decoder of stage 1 gets; None for stage 2. Raises WeightsError for another file, and where
    `states` is missing or of no meaning.
    """
    state = read_state(path, entry="state_dict")
    named = {name.removeprefix("lam."): tensor for name, tensor in state.items()}
    try:
        config, numbers = _config(named, states)
    except KeyError as error:
        raise WeightsError(f"{path}: has no {error}; this is no latent action model of UniVLA") from None
    reads_text = "lang_proj.weight" in named
    if reads_text and states is None:
        raise WeightsError(
            f"{path}: is of stage 1, whose decoder reads text. Files from before 2025-08-21 and after mean other "
            "things: say --text-states encoded (before) or --text-states text (after)"
        )
    if not reads_text and states is not None:
        raise WeightsError(f"{path}: reads no text (it is of stage {config.stage}); leave out --text-states")
    text = _Text() if reads_text else None
    network = UnivlaLam(config, _Frames(named["patch_up.weight"].shape[1]), text, numbers)
    load_released(network, state, path)
    return network, config


def _config(named: State, states: States | None) -> tuple[UnivlaConfig, int | None]:
    codes, code_width = named["vq.codebook.weight"].shape
    width = named["patch_up.weight"].shape[0]
    head = named.get("action_decoder.2.weight")
    config = UnivlaConfig(
        stage=2 if "vq_action.codebook.weight" in named else 1,
        size=SIZE,
        patch=PATCH,
        width=width,
        heads=max(1, width // HEAD_WIDTH),
        encoder_layers=_layers(named, "encoder"),
        decoder_layers=_layers(named, "decoder"),
        tokens=named["action_latent"].shape[2],
        codes=codes,
        code_width=code_width,
        encoder="dinov2-b-reg",
        text="t5-base" if "lang_proj.weight" in named else "none",
        text_states=states or "text",
        head_width=128 if head is None else head.shape[1],
    )
    return config, None if head is None else head.shape[0]


def _layers(named: State, part: str) -> int:
    numbers = {int(found[1]) for name in named if (found := re.match(rf"{part}\.transformer_blocks\.(\d+)\.", name))}
    if not numbers:
        raise KeyError(f"{part}.transformer_blocks.0")
    return max(numbers) + 1


def write_released(path: Path, states: States | None, out: Path) -> str:
    """A folder with `model.safetensors` and `config.json`; its fingerprint."""
    network, config = read_released(path, states)
    recipe = Recipe.model_validate(
        {"key": "univla-lam-released", "title": "as released", "trainee": "univla-lam", "optimiser": {"lr": 1e-4},
         "batch_size": 1, "steps": 0, "losses": {}}
    )  # fmt: skip
    document = config_document(recipe, config, (), None).model_dump(mode="json")
    tensors = {name: tensor.detach().to(torch.float32).contiguous() for name, tensor in network.kept_state().items()}
    publish_bytes(out / MODEL_FILE, save(tensors))
    publish_text(out / CONFIG_FILE, json.dumps(document, indent=2, sort_keys=True) + "\n")
    return fingerprint({name: file_sha256(out / name) for name in (MODEL_FILE, CONFIG_FILE)})


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line. A WeightsError is one message and its exit code."""
    parser = argparse.ArgumentParser(prog="python -m lary_latentvla.released", description=__doc__)
    parser.add_argument("file", type=Path, help="what `lary-orch weights convert` made of a released file")
    parser.add_argument("--to", type=Path, required=True, help="new folder")
    parser.add_argument(
        "--text-states", choices=("text", "encoded"), help="of stage 1: from after or before 2025-08-21"
    )
    given = parser.parse_args(arguments)
    try:
        said = f"{given.to}: {write_released(given.file, given.text_states, given.to)}\n"
    except WeightsError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    sys.stdout.write(said)


if __name__ == "__main__":
    main()
