"""Text encoders by key: instructions -> states (B, L, width) and which of them there are (B, L)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lary_parts.words import word_numbers
from lary_schema.base import WeightsError
from lary_worker.checkpoints import load_pretrained
from torch import Tensor, nn

from lary_latentvla.univla_facts import Text

WORD_WIDTH = 64
T5_WIDTH = 768


class TextEncoder(nn.Module):
    """Base of both."""

    width: int

    def forward(self, texts: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class Words(TextEncoder):
    """A bag of words: one state, the mean over the vectors of an instruction's words, which are learned."""

    width = WORD_WIDTH

    def __init__(self, known: tuple[str, ...]) -> None:
        super().__init__()
        self.known = known
        self.words = nn.Embedding(len(known) + 1, WORD_WIDTH)  # the last: a word that training did not have

    def forward(self, texts: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        numbers = word_numbers(texts, self.known, len(texts)).to(self.words.weight.device)
        there = (numbers >= 0)[..., None].to(self.words.weight.dtype)
        states = (self.words(numbers.clamp_min(0)) * there).sum(1) / there.sum(1).clamp_min(1)
        return states[:, None], torch.ones(len(texts), 1, dtype=torch.bool, device=states.device)


class T5(TextEncoder):
    """Frozen T5: the last hidden states of all tokens of an instruction."""

    width = T5_WIDTH

    def __init__(self, encoder: nn.Module, tokenizer: Any) -> None:
        super().__init__()
        self.encoder, self.tokenizer = encoder.requires_grad_(False).eval(), tokenizer

    @torch.no_grad()
    def forward(self, texts: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        device = next(self.encoder.parameters()).device
        read = self.tokenizer(list(texts), return_tensors="pt", padding=True).to(device)
        states = self.encoder(input_ids=read["input_ids"], attention_mask=read["attention_mask"]).last_hidden_state
        return states, read["attention_mask"].bool()


def make_text_encoder(kind: Text, known: tuple[str, ...], folder: Path | None) -> TextEncoder | None:
    """None for `none`. Raises WeightsError where T5's folder is not given or holds another model."""
    if kind == "none":
        return None
    if kind == "words":
        return Words(known)
    if folder is None:
        raise WeightsError("text t5-base needs its weights, and none are given under the name 'text'")
    import transformers

    networks: Any = transformers
    encoder = load_pretrained(
        networks.T5EncoderModel,
        folder,
        model_type="t5",
        skippable=(r"decoder\.", r"lm_head\.", r"encoder\.embed_tokens\."),
    )
    if encoder.config.d_model != T5_WIDTH:
        raise WeightsError(
            f"{folder}: states of width {encoder.config.d_model}, expected {T5_WIDTH}; this is no t5-base"
        )
    return T5(encoder, networks.AutoTokenizer.from_pretrained(folder, local_files_only=True))
