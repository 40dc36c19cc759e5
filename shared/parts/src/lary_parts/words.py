"""Words of instructions as numbers."""

import torch
from torch import Tensor


def word_numbers(texts: tuple[str, ...], known: tuple[str, ...], rows: int) -> Tensor:
    """(B, L) int64: numbers of the words of each text, len(known) for others, -1 behind a shorter text's end."""
    numbers = {word: number for number, word in enumerate(known)}
    said = [[numbers.get(word, len(known)) for word in text.split()] for text in texts or ("",) * rows]
    length = max(map(len, said), default=0)
    return torch.tensor([line + [-1] * (length - len(line)) for line in said], dtype=torch.int64).reshape(rows, length)
