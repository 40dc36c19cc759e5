"""Runtimes by name: found by the entry point group `lary.runtimes`, so that another one is one package more.

An entry point is named as the runtime is and leads to a `Plugin`. Its module is imported whenever a command that runs
jobs is called, so it should import little; what its functions need they import themselves.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, cast

from lary_schema.base import ContractError
from lary_schema.runs import RunPaths
from lary_terminal.tables import Table

from lary_orch.runtimes.base import LocalRuntime, Notify, Runtime
from lary_orch.runtimes.devices import DeviceChoice
from lary_orch.workspace import Workspace

GROUP = "lary.runtimes"


@dataclass(frozen=True)
class OwnOption:
    """An option of the command line that goes with one runtime."""

    flag: str
    """Such as `--profile`."""
    attributes: Mapping[str, Any]
    """Of `click.option`. Its default has to be None: what is not None was given."""

    @property
    def name(self) -> str:
        return self.flag.lstrip("-").replace("-", "_")


@dataclass(frozen=True)
class Wanted:
    """What a command's options say of the runtime."""

    runtime: str = "auto"
    environment: str = "own"
    """Of process environments: one per image, or the `current` interpreter."""
    device: DeviceChoice = "auto"
    gpus: tuple[str, ...] = ()
    cpu_slots: int | None = None
    own: Mapping[str, Any] = field(default_factory=dict)
    """Values of `OwnOption`s, by name."""


class Detached(Protocol):
    """Runs whose jobs go on when nobody follows them, as a runtime knows them afterwards."""

    key: str
    """Of its part in `status --json`."""

    def state(self, run: RunPaths) -> dict[str, Any] | None:
        """How far a run is, as JSON values; None where it never had anything of it."""

    def table(self, state: dict[str, Any]) -> Table:
        """The same for people."""

    def cancel(self, run: RunPaths, notify: Notify) -> str | None:
        """End all jobs of a run; what was done, for people. None where it never had anything of it."""


@dataclass(frozen=True)
class Plugin:
    """A runtime as the command line knows it."""

    name: str
    open: Callable[[Wanted, Workspace], Runtime]
    """Raises ContractError where it cannot be used here, or options do not go together."""
    options: tuple[OwnOption, ...] = ()
    checks: tuple[str, ...] = ()
    """Modules of its own checks for `doctor` (see `doctor.check.Check`)."""
    auto: int | None = None
    """Its turn when `--runtime auto` looks for one; None: only by name."""
    fits: str = ""
    """Why `auto` takes it, for people."""
    detached: Callable[[], Detached] | None = None
    """Of a runtime whose jobs go on by themselves (`--detach`)."""


DEFAULTS = {
    **{name: getattr(Runtime, name) for name in ("sweep", "slots", "unfit", "preview", "remarks")},
    "as_user": LocalRuntime.as_user,
}


class Completed:
    """A runtime with the interface's own answers in place of the methods that it does not have.

    Its class need not be one of ours, and may be older than a part of the interface.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def __getattr__(self, name: str) -> Any:
        if name in DEFAULTS and not hasattr(self._runtime, name):
            return partial(DEFAULTS[name], self._runtime)
        return getattr(self._runtime, name)


@cache
def plugins() -> dict[str, Plugin]:
    """All that are installed, by name. Raises ContractError for one that cannot be loaded."""
    found = {point.name: _load(point) for point in entry_points(group=GROUP)}
    return dict(sorted(found.items(), key=lambda item: (item[1].auto is None, item[0])))


def _load(point: EntryPoint) -> Plugin:
    where = f"runtime {point.name} ({point.value})"
    try:
        plugin = point.load()
    except Exception as error:
        raise ContractError(f"{where}: cannot be loaded: {error}; correct or uninstall its package") from error
    if not isinstance(plugin, Plugin) or plugin.name != point.name:
        raise ContractError(f"{where}: the entry point must lead to a Plugin of this name")
    return replace(plugin, open=lambda *wanted: _completed(plugin.open(*wanted)))


def _completed(runtime: Runtime) -> Runtime:
    """One that is derived from the interface has its answers already."""
    return runtime if Runtime in type(runtime).__mro__ else cast(Runtime, Completed(runtime))


def plugin(name: str) -> Plugin:
    """Raises ContractError with the names that there are."""
    found = plugins()
    if name not in found:
        raise ContractError(f"no runtime {name!r}; installed: {', '.join(found)}")
    return found[name]


def detachable() -> list[str]:
    return [name for name, plugin in plugins().items() if plugin.detached is not None]


def own_options() -> list[OwnOption]:
    """The options of all runtimes. Raises ContractError where two have the same."""
    owners: dict[str, str] = {}
    for name, found in plugins().items():
        for option in found.options:
            if option.name in owners:
                raise ContractError(f"runtimes {owners[option.name]} and {name} both have the option {option.flag}")
            owners[option.name] = name
    return [option for found in plugins().values() for option in found.options]


def check_options(wanted: Wanted) -> None:
    """Raises ContractError for an option of another runtime than the wanted one."""
    for name, found in plugins().items():
        for option in found.options:
            if wanted.own.get(option.name) is not None and wanted.runtime != name:
                raise ContractError(f"{option.flag} goes with --runtime {name} alone")
