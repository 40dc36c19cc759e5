"""Where things are on this machine. Every path of the orchestrator is a property here."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lary_schema.paths import normalised
from lary_schema.runs import RunPaths


@dataclass(frozen=True)
class Workspace:
    """The folders of one bench on this machine."""

    root: Path
    data: Path
    """Datasets of the user: the root of media (LARYBench: DATA_DIR)."""
    metadata: Path
    """Their CSVs (LARYBench: LARY_ROOT/data); those that are not there are looked for in the data root."""
    latents: Path
    """The shared volume (LARYBench: LARY_LA_DIR)."""
    weights: Path
    """Checkpoints (LARYBench: MODEL_DIR)."""

    @classmethod
    def locate(
        cls,
        root: Path | None = None,
        data: Path | None = None,
        latents: Path | None = None,
        weights: Path | None = None,
        metadata: Path | None = None,
        env: Mapping[str, str] = os.environ,
    ) -> Self:
        """Arguments first, then LARY_HOME, DATA_DIR, LARY_ROOT, LARY_LA_DIR and MODEL_DIR, then ./workspace.

        CSVs are looked for in the data root where neither an argument nor LARY_ROOT says more.
        """
        home = normalised(root or Path(env.get("LARY_HOME") or "workspace"))

        def pick(given: Path | None, name: str, default: str) -> Path:
            return normalised(given or Path(env.get(name) or home / default))

        data = pick(data, "DATA_DIR", "data")
        lary_root = env.get("LARY_ROOT")
        return cls(
            root=home,
            data=data,
            metadata=normalised(metadata or (Path(lary_root, "data") if lary_root else data)),
            latents=pick(latents, "LARY_LA_DIR", "latents"),
            weights=pick(weights, "MODEL_DIR", "weights"),
        )

    @property
    def generated(self) -> Path:
        """Data root of the built-in demo sets."""
        return self.root / "generated"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def trained(self) -> Path:
        """Checkpoints that were trained here: KEY/checkpoint."""
        return self.root / "trained"

    @property
    def envs(self) -> Path:
        """One virtual environment per image, for the process runtime."""
        return self.root / "envs"

    @property
    def cache(self) -> Path:
        """What can be computed again: hashes of weights, replies of `describe`."""
        return self.root / "cache"

    def run(self, name: str) -> RunPaths:
        return RunPaths(self.runs / name, self.results / name)
