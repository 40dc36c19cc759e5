"""A vision-language-action model: one pass of an image-text model over image, instruction and placeholders.

B rows; L positions; S placeholders, N steps, A dimensions; H width of the backbone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lary_latentvla.backbones import image_inputs, image_tokens
from lary_latentvla.vla_facts import VlaConfig
from lary_latentvla.vla_head import ActionHead, Pool, entries
from lary_latentvla.vocabulary import Vocabulary


@dataclass(frozen=True)
class Prompt:
    """Token ids of B rows, padded at the end, and what each position is."""

    ids: Tensor
    """int64 (B, L)."""
    there: Tensor
    """bool (B, L): False where padded."""
    image: Tensor
    """bool (B, L)."""
    slots: Tensor
    """int64 (B, S): positions of the placeholders, those for latents first."""

    @property
    def task(self) -> Tensor:
        """bool (B, L): image, text and what is around them."""
        return self.there.scatter(1, self.slots, False)


def make_prompt(rows: Sequence[Sequence[int]], vocabulary: Vocabulary, device: torch.device) -> Prompt:
    """Of the ids of each row, all with as many placeholders; everything is found by its id."""
    length = max(map(len, rows))
    ids = torch.tensor([[*row, *[vocabulary.pad] * (length - len(row))] for row in rows], device=device)
    there = torch.arange(length, device=device) < torch.tensor([[len(row)] for row in rows], device=device)
    slot = ((ids == vocabulary.latent_slot) | (ids == vocabulary.action_slot)) & there
    slots = slot.nonzero()[:, 1].reshape(len(rows), -1)
    return Prompt(ids, there, (ids == vocabulary.image) & there, slots)


def at(states: Tensor, positions: Tensor) -> Tensor:
    """(B, L, H) and (B, S) -> (B, S, H)."""
    return states.gather(1, positions[..., None].expand(-1, -1, states.shape[-1]))


@dataclass(frozen=True)
class Seen:
    """What one pass gives."""

    actions: Tensor
    """(B, N, A) in [-1, 1]."""
    slots: Tensor
    """(B, S, H): last hidden states at the placeholders."""
    scores: Tensor | None
    """(B, labels, vocabulary): logits of the position before each labelled placeholder."""
    aligned: Tensor | None
    """(B, N, D): what is aligned with the latent of each step."""


class VlaNetwork(nn.Module):
    """Backbone, head, and what a strategy adds."""

    def __init__(
        self, config: VlaConfig, backbone: nn.Module, vocabulary: Vocabulary, dimensions: int, latent_width: int
    ) -> None:
        """`latent_width`: D of the latents that are aligned with; 0 where none are."""
        super().__init__()
        self.config, self.vocabulary, self.dimensions = config, vocabulary, dimensions
        self.backbone = backbone
        self.label_ids: Tensor
        self.register_buffer("label_ids", torch.tensor(vocabulary.labels, dtype=torch.int64), persistent=False)
        width = config.facts.width
        self.head = ActionHead(
            config.head_width, config.head_blocks, config.head_heads, width, config.chunk, dimensions
        )
        self.pool = Pool(width) if config.strategy == "la-direct" else None
        self.aligner = (
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, config.align_width), nn.GELU(),
                nn.Linear(config.align_width, latent_width),
            )
            if latent_width
            else None
        )  # fmt: skip

    def kept_state(self) -> dict[str, Tensor]:
        """What a checkpoint holds: all that is trained, each tensor once (a head may share the embeddings).

        Of a backbone that is drawn and not downloaded also what is frozen: nothing else has it.
        """
        downloaded = self.config.facts.weights is not None
        frozen = {id(p) for p in self.parameters() if downloaded and not p.requires_grad}
        kept: dict[str, Tensor] = {}
        seen: set[int] = set()
        for name, tensor in self.state_dict(keep_vars=True).items():
            if id(tensor) not in frozen | seen:
                kept[name] = tensor.detach()
                seen.add(id(tensor))
        return kept

    def prompt(self, texts: Sequence[str], device: torch.device) -> Prompt:
        """Of the instructions of B rows. Raises ContractError for one that holds a token of the model's own."""
        count = image_tokens(self.config.facts.family, self.backbone, self.config.size)
        asked = [self.config.prompt.replace("{instruction}", text) for text in texts]
        return make_prompt(
            [self.vocabulary.ids(text, count, self.config.slots) for text in asked], self.vocabulary, device
        )

    def states(self, frames: Tensor, prompt: Prompt) -> tuple[Tensor, ...]:
        """Hidden states (B, L, H) of every layer, of frames uint8 (B, H, W, 3); entry 0 goes into the first layer."""
        family, backbone = self.config.facts.family, self.backbone
        given = image_inputs(family, backbone, frames)
        given["pixel_values"] = given["pixel_values"].to(next(backbone.parameters()).dtype)
        if family == "qwen3-vl":
            given["mm_token_type_ids"] = prompt.image.long()
        inner: Any = backbone.model
        found = inner(
            input_ids=prompt.ids,
            attention_mask=prompt.there.long(),
            output_hidden_states=True,
            use_cache=False,
            **given,
        )
        states: tuple[Tensor, ...] = found.hidden_states
        return states

    def forward(self, frames: Tensor, texts: Sequence[str]) -> Seen:
        """First frames uint8 (B, H, W, 3) and instructions."""
        prompt = self.prompt(texts, frames.device)
        states = self.states(frames, prompt)
        read = [states[entry] for entry in entries(self.config.head_blocks, len(states))]
        actions = self.head([self._read(at(s, prompt.slots)) for s in read], read, prompt.task)
        slots = at(states[-1], prompt.slots)
        return Seen(actions, slots, self._scores(states[-1], prompt), self._aligned(states, prompt))

    def _read(self, slots: Tensor) -> Tensor:
        """What the head sees of the placeholders."""
        if self.pool is None:
            return slots
        latent = self.config.slots[0]
        return torch.cat((self.pool(slots[:, :latent], self.config.chunk), slots[:, latent:]), dim=1)

    def _scores(self, states: Tensor, prompt: Prompt) -> Tensor | None:
        labelled = self.labelled(prompt)
        if labelled is None:
            return None
        head: Any = self.backbone.lm_head
        scores: Tensor = head(at(states, before(labelled)))
        return scores

    def labelled(self, prompt: Prompt) -> Tensor | None:
        """(B, labels): positions of the placeholders that have a label."""
        latent = self.config.slots[0]
        kinds = {"none": None, "latent": prompt.slots[:, :latent], "action": prompt.slots[:, latent:]}
        return kinds[self.config.labelled]

    def _aligned(self, states: tuple[Tensor, ...], prompt: Prompt) -> Tensor | None:
        if self.aligner is None:
            return None
        last = at(states[self.config.align_layer], prompt.slots[:, -self.config.chunk :])
        aligned: Tensor = self.aligner(last)
        return aligned


def before(positions: Tensor) -> Tensor:
    """Where the token at each position is predicted: one earlier, as in every causal language model."""
    return positions - 1
