"""The tokenizer of a vision-language-action model, with tokens of its own added; every id is asked for.

No id is written anywhere: another tokenizer, or one with other tokens added before, has others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lary_schema.base import ContractError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LATENT_SLOT, ACTION_SLOT = "<|lary_latent|>", "<|lary_action|>"
"""Placeholders: a hidden state at one of them is read."""
TINY_SPECIAL = ("<pad>", "<unk>", "<image>", "<vision>", "</vision>", "<video>")
"""Of a tokenizer that is made of words, in this order."""


@dataclass(frozen=True)
class Wrapping:
    """What a family of models has around the image and the question."""

    image: str
    """The token that stands for each image token."""
    before: str
    """Before them."""
    after: str
    end: str
    """After the question."""


WRAPPINGS = {
    "tiny": Wrapping("<image>", "<vision>", "</vision>", ""),
    "qwen3-vl": Wrapping(
        "<|image_pad|>", "<|im_start|>user\n<|vision_start|>", "<|vision_end|>", "<|im_end|>\n<|im_start|>assistant\n"
    ),
    "smolvlm": Wrapping(
        "<image>",
        "<|im_start|>User:<fake_token_around_image><global-img>",
        "<fake_token_around_image>",
        "<end_of_utterance>\nAssistant:",
    ),
}


def label_token(number: int) -> str:
    """Of a code: a word of the vocabulary."""
    return f"<|lary_code_{number}|>"


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerBase:
    """A tokenizer of whole words; others become `<unk>`. Nothing is downloaded."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = [*TINY_SPECIAL, *sorted(set(words) - set(TINY_SPECIAL))]
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(known)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(list(TINY_SPECIAL))
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", unk_token="<unk>")


def downloaded_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """That of a downloaded model."""
    from transformers import AutoTokenizer

    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return found


class Vocabulary:
    """A tokenizer with placeholders and `labels` code tokens added, and their ids."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, wrapping: Wrapping, labels: int) -> None:
        """Raises ContractError where a token to be added is there already, or the image's token is not there."""
        own = [LATENT_SLOT, ACTION_SLOT, *map(label_token, range(labels))]
        there = set(tokenizer.get_vocab())
        if taken := [token for token in own if token in there]:
            raise ContractError(
                f"the tokenizer has {taken[0]!r} already ({len(taken)} of {len(own)} tokens to be added); start from "
                "the tokenizer as it was downloaded"
            )
        if wrapping.image not in there:
            raise ContractError(f"the tokenizer has no {wrapping.image!r}; it is not of this backbone's family")
        self.tokenizer, self._wrapping = tokenizer, wrapping
        tokenizer.add_tokens(own, special_tokens=True)
        ids: Any = tokenizer.convert_tokens_to_ids(own)
        self.latent_slot, self.action_slot = ids[:2]
        self.labels: list[int] = ids[2:]
        """The id of each code."""
        found: Any = tokenizer.convert_tokens_to_ids(wrapping.image)
        self.image: int = found
        self.added: list[int] = ids
        # 0 where a tokenizer has none: what is padded is masked out.
        self.pad: int = tokenizer.pad_token_id or 0

    def __len__(self) -> int:
        return len(self.tokenizer)

    def ids(self, text: str, image_tokens: int, slots: tuple[int, int]) -> list[int]:
        """Image, text, placeholders for latents, placeholders for actions.

        Raises ContractError where the text holds a token that has a meaning of its own: checked by ids, since a
        tokenizer may make one of what looks otherwise.
        """
        question = self._encode(text)
        if meant := set(question) & {self.image, *self.added}:
            token = self.tokenizer.convert_ids_to_tokens(min(meant))
            raise ContractError(f"the instruction {text!r} holds the token {token!r}, which the model reads as its own")
        wrapping = self._wrapping
        return [
            *self._encode(wrapping.before),
            *[self.image] * image_tokens,
            *self._encode(wrapping.after),
            *question,
            *self._encode(wrapping.end),
            *[self.latent_slot] * slots[0],
            *[self.action_slot] * slots[1],
        ]

    def _encode(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=False) if text else []
        return found
