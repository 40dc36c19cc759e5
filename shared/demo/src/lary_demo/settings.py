"""What determines a demo set."""

from dataclasses import dataclass

from lary_schema.base import ContractError

VERSION = 1
"""Of the generator: bump it when a pixel, a row or an action changes."""

DISTRACTOR = {"demo_motion": 50, "demo_arm": 50, "demo_arm_long": 100, "demo_arm_still": 0}
"""By set: how strong its distractor is drawn where nothing else is said, percent."""


@dataclass(frozen=True)
class Settings:
    """What determines a demo set, besides its key."""

    seed: int = 0
    distractor: int = 50
    """How strong the distractor is drawn, percent: 0 is absent, 100 opaque."""
    version: int = VERSION

    def __post_init__(self) -> None:
        if not 0 <= self.distractor <= 100:
            raise ContractError(f"distractor is {self.distractor}; it is a percentage, 0 to 100")
        if self.seed < 0:
            raise ContractError(f"seed is {self.seed}; it must not be negative")

    @classmethod
    def of(cls, key: str, seed: int = 0, distractor: int | None = None) -> "Settings":
        """Those of a set, its own strength of the distractor where none is given. Raises ContractError."""
        if key not in DISTRACTOR:
            raise ContractError(f"no demo set {key!r}; there are {', '.join(DISTRACTOR)}")
        if key == "demo_arm_still" and distractor:
            raise ContractError(f"{key} has no distractor; make demo_arm_long, which is the same with one")
        return cls(seed, DISTRACTOR[key] if distractor is None else distractor)

    @property
    def name(self) -> str:
        """The media folder. Being part of every path in the CSV, it makes other pixels another CSV."""
        return f"v{self.version}-seed{self.seed}-distractor{self.distractor}"
