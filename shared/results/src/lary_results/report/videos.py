"""Videos of a few episodes of each policy, in the page itself: it is one file, and needs nothing beside it."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from lary_schema.evaluation import Episode

from lary_results.evaluations import Board, Standing
from lary_results.report.embedded import MIB, read_within
from lary_results.report.markup import Html, Value, details, el

HINT = (
    "The episodes of the lowest seeds and initial states, done once more from the recorded actions: bit for bit the "
    "states of the episodes that count."
)


class Filmed(NamedTuple):
    """An episode of which there is a video."""

    task: str
    seed: int
    episode: Episode
    path: Path

    @property
    def title(self) -> str:
        one = self.episode
        if one.success:
            how = f"success after {one.steps} steps"
        else:
            how = f"{one.fault} after {one.steps} steps" if one.fault else f"no success in {one.steps} steps"
        return f"{self.task}, state {one.state}, seed {self.seed}: {how}"


@dataclass
class Videos:
    """Chooses what fits: of every policy a success and a failure first, then its second ones."""

    limit_bytes: int
    """Of all videos of the page together, as files; in the page they take a third more."""
    chosen: dict[Path, bytes] = field(default_factory=dict)
    taken_bytes: int = 0

    @classmethod
    def choose(cls, boards: Sequence[Board], limit_mib: float) -> "Videos":
        made = cls(int(limit_mib * MIB))
        standings = [standing for board in boards for standing in board.standings.values()]
        queue = [(turn, one) for standing in standings for turn, one in enumerate(_in_turn(standing))]
        for _, one in sorted(queue, key=lambda pair: pair[0]):
            made._take(one.path)
        return made

    def _take(self, path: Path) -> None:
        content = _mp4(path, self.limit_bytes - self.taken_bytes)
        if content is not None:
            self.chosen[path] = content
            self.taken_bytes += len(content)

    def section(self, board: Board) -> Html | None:
        """One foldable row of videos per policy."""
        parts = [part for one in board.standings.values() if (part := self._of(one)) is not None]
        if not parts:
            return None
        return el("div", el("h3", "Videos"), el("p", HINT, class_="muted"), parts, class_="screen")

    def _of(self, standing: Standing) -> Html | None:
        found = list(filmed(standing))
        if not found:
            return None
        shown = [_video(one, self.chosen[one.path]) for one in found if one.path in self.chosen]
        left_out = len(found) - len(shown)
        where = f"{left_out} more in {found[0].path.parents[2]}"
        note = el("p", where, class_="muted") if left_out else None
        return details(standing.policy, el("div", shown, class_="videos"), note, open_=True)


def filmed(standing: Standing) -> Iterator[Filmed]:
    """Episodes that count and have a video, successes first."""
    found = [
        Filmed(task, seed, episode, folder / episode.video)
        for (task, seed), folder in standing.folders.items()
        for episode in standing.episodes[task][seed].values()
        if (folder / episode.video).is_file()
    ]
    yield from sorted(found, key=lambda one: (not one.episode.success, one.seed, one.episode.state, one.task))


def _in_turn(standing: Standing) -> Iterator[Filmed]:
    found = list(filmed(standing))
    successes = [one for one in found if one.episode.success]
    for pair in zip_longest(successes, found[len(successes) :]):
        yield from filter(None, pair)


def _mp4(path: Path, room: int) -> bytes | None:
    """A video's bytes, if it is one and fits."""
    content = read_within(path, room)
    return content if content is not None and content[4:8] == b"ftyp" else None


def _video(one: Filmed, content: bytes) -> Html:
    source = f"data:video/mp4;base64,{base64.b64encode(content).decode()}"
    options: dict[str, Value] = {"controls": True, "muted": True, "playsinline": True, "preload": "metadata"}
    player = el("video", src=source, aria_label=one.title, **options)
    return el("figure", player, el("figcaption", one.title), class_="video")
