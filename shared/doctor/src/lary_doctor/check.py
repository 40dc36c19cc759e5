"""What a check is: a module with NAME and run()."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

from lary_orch.catalog.cards import Catalog
from lary_orch.workspace import Workspace

from lary_doctor.engine_facts import Engine, find_engine

Status = Literal["ok", "warn", "fail", "skip"]
"""`warn`: the bench runs, not as well as it could. `skip`: does not matter here."""


@dataclass(frozen=True)
class Finding:
    """What a check found, and what to do about it."""

    status: Status
    message: str
    remedy: str = ""


@dataclass(frozen=True)
class Context:
    """What is checked for."""

    workspace: Workspace
    catalog: Catalog
    models: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    runtime: str = "auto"
    own: Mapping[str, Any] = field(default_factory=dict)
    """The options of the runtimes' own, by name."""

    @cached_property
    def engine(self) -> Engine | str:
        """The container engine, or why there is none. Looked for once."""
        return find_engine()


class Check(Protocol):
    """One check of this machine."""

    NAME: str

    def run(self, context: Context) -> Finding:
        """Look, and change nothing. Raises ContractError for a catalog or a request that is no good."""


def worst(findings: list[Finding]) -> Finding:
    """One finding of several: the gravest status, the messages of that status."""
    order: tuple[Status, ...] = ("fail", "warn", "ok", "skip")
    status = next(s for s in order if any(f.status == s for f in findings))
    chosen = [f for f in findings if f.status == status]
    remedies = dict.fromkeys(f.remedy for f in chosen if f.remedy)
    return Finding(status, "; ".join(f.message for f in chosen), "; ".join(remedies))
