"""The policies and benchmarks of this image: entry points, with their cards from its `image.yaml`."""

import importlib.resources
import importlib.util
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path

from lary_schema.base import ContractError, file_sha256, fingerprint, unknown_key
from lary_schema.cards import BenchmarkCard, ImageCard
from lary_schema.evaluation import BASELINES
from lary_schema.yaml_files import parse_yaml

from lary_policy.baselines import make_baseline
from lary_policy.policy import Policy
from lary_policy.simulator import Simulator

POLICIES, SIMULATORS = "lary.policies", "lary.simulators"
IMAGE_VARIABLE = "LARY_IMAGE"
NAMED_LIBRARIES = ("av", "numpy", "torch", "mujoco", "robosuite")
_OWN = "lary_policy"
_PARTS = "lary_parts"
"""What trained policies are made of; not of this package's dependencies."""


@cache
def find_image() -> ImageCard:
    """The card of this interpreter's image; LARY_IMAGE says which where several are installed.

    Raises ContractError where there is none, or several and no choice.
    """
    packages = {
        point.module.partition(".")[0] for group in (POLICIES, SIMULATORS) for point in entry_points(group=group)
    }
    cards = {card.name: card for card in map(_card_of, sorted(packages))}
    wanted = os.environ.get(IMAGE_VARIABLE)
    chosen = {name: card for name, card in cards.items() if wanted in (None, "", name)}
    if len(chosen) != 1:
        found = ", ".join(cards) or "none"
        hint = f"image {wanted!r} is not installed here" if wanted else f"set {IMAGE_VARIABLE} to one of the images"
        raise ContractError(f"{hint}; with policies or simulators there are: {found}")
    return next(iter(chosen.values()))


def _card_of(package: str) -> ImageCard:
    where = f"{package}/image.yaml"
    try:
        text = (importlib.resources.files(package) / "image.yaml").read_text(encoding="utf-8")
    except (OSError, ModuleNotFoundError):
        raise ContractError(f"{where}: missing; the package has policies or simulators, so it needs one") from None
    return ImageCard.parse(parse_yaml(text, where), where)


def benchmark_card(key: str) -> BenchmarkCard:
    """Raises ContractError for a benchmark that this image does not have."""
    cards = {card.key: card for card in find_image().benchmarks}
    if key not in cards:
        raise unknown_key(f"benchmark of image {find_image().name}", key, cards or ("none",))
    return cards[key]


def make_simulator(key: str, task: str) -> Simulator:
    """One task of a benchmark. Raises ContractError where one of the two is unknown."""
    card = benchmark_card(key)
    card.task(task)
    found = _point(SIMULATORS, key).load()
    if not (isinstance(found, type) and issubclass(found, Simulator)):
        raise ContractError(f"entry point {key} of {SIMULATORS} is no lary_policy.Simulator")
    made: Simulator = found(card, task)
    return made


def make_policy(key: str) -> Policy:
    """A policy, not loaded. Raises ContractError for one that this image does not have."""
    if key in BASELINES:
        return make_baseline(key)
    found = _point(POLICIES, _declared(key)).load()
    if not (isinstance(found, type) and issubclass(found, Policy)):
        raise ContractError(f"entry point {key} of {POLICIES} is no lary_policy.Policy")
    return found(key)


def _declared(key: str) -> str:
    for card in find_image().policies:
        if card.serves(key):
            return card.key
    names = [card.key for card in find_image().policies]
    raise unknown_key(f"policy of image {find_image().name}", key, (*names, *BASELINES))


def _point(group: str, key: str) -> EntryPoint:
    for point in entry_points(group=group, name=key):
        if _card_of(point.module.partition(".")[0]).name == find_image().name:
            return point
    raise ContractError(f"image {find_image().name}: its card names {key}, and no entry point of {group} does")


def describe(key: str | None = None) -> ImageCard:
    """The image's card with source hashes and versions; with `key`, of that policy or benchmark alone.

    A policy that fits every benchmark (`random`) is no card's: what it does lies in this package.
    """
    card = find_image()
    policies = [one for one in card.policies if key is None or one.serves(key)]
    benchmarks = [one for one in card.benchmarks if key in (None, one.key)]
    if key is not None and not policies and not benchmarks:
        raise unknown_key(f"policy or benchmark of image {card.name}", key, [*(c.key for c in card.policies), "none"])
    update: dict[str, object] = {
        "policies": tuple(c.model_copy(update={"code_sha256": _code(POLICIES, c.key)}) for c in policies),
        "benchmarks": tuple(c.model_copy(update={"code_sha256": _code(SIMULATORS, c.key)}) for c in benchmarks),
        "libraries": libraries(),
    }
    if key is not None:
        update["models"] = ()
    return card.model_copy(update=update)


def _code(group: str, key: str) -> str:
    """Hash of all sources of the package that has it, of this one, and of the shared parts where it is made of them."""
    own = _point(group, key).module.partition(".")[0]
    uses_parts = any(_PARTS.encode() in path.read_bytes() for path in _sources(own).values())
    names = (own, _OWN, *((_PARTS,) if uses_parts else ()))
    return fingerprint({name: {inside: file_sha256(path) for inside, path in _sources(name).items()} for name in names})


def _sources(name: str) -> dict[str, Path]:
    """The sources of a package by their path in it."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.py"))}


def libraries() -> dict[str, str]:
    """Versions of what can move a value, Python's own among them: what the benchmarks' cards name, and the usual."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    named = (name for card in find_image().benchmarks for name in card.libraries)
    return found | installed((*NAMED_LIBRARIES, *named))


def installed(names: Iterable[str]) -> dict[str, str]:
    """The versions of those that are there."""
    found = {}
    for name in dict.fromkeys(names):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
