"""Held-out measures of a vision-language-action model, each with what a constant would give."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


@dataclass
class Measures:
    """Collects batches: errors of actions by step, labels and their guesses, aligned vectors."""

    constant: np.ndarray[tuple[int], np.dtype[np.float64]]
    """(A,): the actions of one who does not look."""
    made: list[Tensor] = field(default_factory=list)
    true: list[Tensor] = field(default_factory=list)
    guesses: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    aligned: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)

    def add_labels(self, guesses: Tensor, labels: Tensor, valid: Tensor) -> None:
        self.guesses.append(guesses[valid].cpu())
        self.labels.append(labels[valid].cpu())

    def add_aligned(self, aligned: Tensor, targets: Tensor, valid: Tensor) -> None:
        self.aligned.append(aligned[valid].float().cpu())
        self.targets.append(targets[valid].float().cpu())

    def result(self) -> dict[str, float]:
        """`l1` and `l1_step_i` of actions in [-1, 1]; `l1_mean` of the training mean; `spread`: deviation over the
        steps of a chunk over that of the truth. `label_accuracy` beside `label_majority` (the most frequent label
        always) and `label_unigram` (labels drawn by their frequencies). `cosine`, and centred: both less their means.
        """
        made, true = torch.cat(self.made), torch.cat(self.true)
        errors = (made - true).abs()
        measured = {"l1": float(errors.mean()), "l1_mean": float((true - torch.from_numpy(self.constant)).abs().mean())}
        measured |= {f"l1_step_{n + 1}": float(error) for n, error in enumerate(errors.mean((0, 2)))}
        measured["spread"] = _spread(made) / max(_spread(true), 1e-9)
        return measured | self._of_labels() | self._of_aligned()

    def _of_labels(self) -> dict[str, float]:
        labels = torch.cat(self.labels) if self.labels else torch.empty(0)
        if not len(labels):
            return {}
        shares = torch.bincount(labels).double() / len(labels)
        return {
            "label_accuracy": float((torch.cat(self.guesses) == labels).double().mean()),
            "label_majority": float(shares.max()),
            "label_unigram": float(shares.square().sum()),
        }

    def _of_aligned(self) -> dict[str, float]:
        if not self.aligned:
            return {}
        made, true = torch.cat(self.aligned), torch.cat(self.targets)
        if not len(made):
            return {}
        return {
            "cosine": float(functional.cosine_similarity(made, true, dim=-1).mean()),
            "cosine_centred": float(
                functional.cosine_similarity(made - made.mean(0), true - true.mean(0), dim=-1).mean()
            ),
        }


def _spread(chunks: Tensor) -> float:
    return float(chunks.std(1, correction=0).mean())
