"""A frame of the demo sets, its shapes drawn within their bounding boxes and over the whole frame. The same pixels."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from common import arguments, measured, ratio, report
from lary_demo import arm, canvas, motion

WHOLE_FRAME = patch.object(canvas, "_pixels", lambda *_: slice(0, canvas.SIZE))


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    episodes, clips = arm.episodes("val", 0)[:8], motion.clips("val", 0)[:16]
    worlds: dict[str, Callable[[], bytes]] = {
        "arm": lambda: b"".join(e.frame(t, 50).tobytes() for e in episodes for t in range(0, 17, 4)),
        "motion": lambda: b"".join(clip.frames(50).tobytes() for clip in clips),
    }
    rounds = max(options.rounds, 9)
    figures: dict[str, Any] = {"rounds": rounds}
    for name, draw in worlds.items():
        assert draw() == WHOLE_FRAME(draw)()
        ways = {"bounding box": draw, "whole frame": WHOLE_FRAME(draw)}
        seconds = measured(ways, rounds)
        milliseconds = seconds["bounding box"]["processor_s"] * 1e3 * canvas.SIZE**2 * 3 / len(draw())
        over = ratio(seconds, "whole frame", "bounding box")
        figures[name] = {**seconds, "ratio": over, "bounding_box_ms_a_frame": round(milliseconds, 3)}
    report("demo_drawing", figures, options.save)


if __name__ == "__main__":
    main()
