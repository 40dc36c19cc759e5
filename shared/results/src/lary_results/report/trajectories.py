"""The regression probes' pictures: truth and prediction over time, with the two frames."""

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lary_results.report.embedded import MIB, read_within
from lary_results.report.markup import Html, details, el, join
from lary_results.scores import Score, number

FOLDER = "eval_vis"
SIGNATURE = b"\x89PNG\r\n\x1a\n"
WIDE = 1.3
"""Ratio of the sides above which a picture would be too small on a phone."""
HINT = "Rows at even ranks of the error, from the best to the worst; normalised actions."
ON_PAPER = "Printed: of each model the best row, one between and the worst; the page itself shows more."


@dataclass
class Pictures:
    """Chooses what fits: first each split's best row, then its worst, then what lies between."""

    limit_bytes: int
    """Of all pictures of the page together, as files; in the page they take a third more."""
    chosen: dict[Path, bytes] = field(default_factory=dict)
    left_out: dict[tuple[str, str], int] = field(default_factory=dict)
    """By result file and split."""
    taken_bytes: int = 0

    @classmethod
    def choose(cls, scores: Sequence[Score], limit_mib: float) -> "Pictures":
        made = cls(int(limit_mib * MIB))
        found = {(s.file, s.split): pictures_of(s) for s in scores}
        queue = [(turn, nth, of) for nth, of in enumerate(found) for turn in range(len(found[of]))]
        for turn, _, of in sorted(queue):
            made._take(of, found[of][turn])
        return made

    def _take(self, of: tuple[str, str], path: Path) -> None:
        content = _png(path, self.limit_bytes - self.taken_bytes)
        if content is None:
            self.left_out[of] = self.left_out.get(of, 0) + 1
        else:
            self.chosen[path] = content
            self.taken_bytes += len(content)

    def section(self, scores: Sequence[Score]) -> Html | None:
        """One foldable row of pictures per model and split, the best one open; controls have none."""
        ours = [score for score in scores if score.control == "none" and score.metric == "mse"]
        shown = sorted(ours, key=lambda s: (s.split, s.probe, s.rank))
        parts = [part for score in shown if (part := self._of(score, open_=score is shown[0])) is not None]
        if not parts:
            return None
        return join(
            el("h4", "Trajectories"),
            el("p", HINT, class_="muted"),
            el("p", ON_PAPER, class_="muted paper"),
            parts,
        )

    def _of(self, score: Score, *, open_: bool) -> Html | None:
        paths = [path for path in sorted(pictures_of(score), key=str) if path in self.chosen]
        left_out = self.left_out.get((score.file, score.split), 0)
        if not paths and not left_out:
            return None
        name = f"{score.model} ({', '.join(filter(None, (score.variant, score.probe)))}) on {score.split}"
        printed = {0, len(paths) // 2, len(paths) - 1}
        images = [
            _image(self.chosen[path], f"{name}, {path.stem}", printed=nth in printed) for nth, path in enumerate(paths)
        ]
        where = Path(score.file).parent / FOLDER
        note = el("p", f"{left_out} more in {where}", class_="muted") if left_out else None
        title = f"{name}: MSE {number(score.metric, score.value)}"
        return details(title, el("div", images, class_="pictures"), note, open_=open_)


def pictures_of(score: Score) -> list[Path]:
    """A split's pictures: the best row's, the worst one's, then the others."""
    if score.control != "none" or score.metric != "mse":
        return []
    paths = sorted((Path(score.file).parent / FOLDER / score.split).rglob("*.png"), key=str)
    return paths if len(paths) < 3 else [paths[0], paths[-1], *paths[1:-1]]


def _png(path: Path, room: int) -> bytes | None:
    """A picture's bytes, if it is one and fits."""
    content = read_within(path, room)
    return content if content is not None and content.startswith(SIGNATURE) else None


def _image(content: bytes, alt: str, *, printed: bool) -> Html:
    """Wide pictures keep a readable width and scroll on a phone; square ones shrink."""
    width, height = struct.unpack(">II", content[16:24].ljust(8, b"\0"))
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    picture = el("img", src=source, alt=alt, class_="wide" if width > WIDE * height else None)
    return el("figure", picture, class_="picture" if printed else "picture screen", tabindex="0")
