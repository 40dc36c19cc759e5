"""Jobs from start to end, as processes."""

from typing import Any

import numpy as np


def test_clips_become_latents(bench: Any, media_tools: Any) -> None:
    bench.clips(media_tools.colours * 2)
    done = bench.extract(bench.job())
    assert done.code == 0, done.stderr
    store = bench.store()
    assert store.ok_rows().tolist() == list(range(10))
    tokens = store.tokens(np.arange(10))
    assert tokens.shape == (10, 3, 1, 3)
    for row, colour in enumerate(media_tools.colours * 2):
        assert np.abs(tokens[row, 0, 0] - media_tools.frames(colour, 1).mean(axis=(0, 1, 2))).max() < 3
    assert [e.event for e in done.events if e.event != "progress"] == ["started", *["shard_done"] * 3, "finished"]
