"""docs/environment.md names every environment variable that the sources read or set."""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

REPO = Path(__file__).parents[1]
PAGE = (REPO / "docs/environment.md").read_text(encoding="utf-8")
SOURCES = [path for room in ("shared", "images", "orchestrator") for path in REPO.glob(f"{room}/**/src/**/*.py")]
TESTS = [path for room in ("shared", "images", "orchestrator") for path in REPO.glob(f"{room}/**/tests/**/*.py")]
SCRIPTS = [
    *TESTS, *REPO.glob("tests/**/*.py"), REPO / "tests/slurm/cluster-up", REPO / "conftest.py", REPO / "compose.yaml",
]  # fmt: skip
NAME = re.compile(r"""(?<=["'])([A-Z][A-Z0-9]*(_[A-Z0-9]+)+|RANK)(?=["'])""")
OTHER = {
    "BASE_IMAGE", "BOOT_FAIL", "NODE_FAIL", "OUT_OF_MEMORY", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD",
    "SPECIAL_EXIT", "STAGE_OUT", "TORCH_INDEX",
}  # fmt: skip
"""Constants of that form which are no variables: arguments of a build, states of Slurm."""


def written() -> Iterator[str]:
    """String constants of the sources that look like a variable's name, and names inside generated shell scripts."""
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        yield from (found[0] for found in NAME.finditer(text))
        yield from re.findall(r"\b(LARY_[A-Z_]*[A-Z])\b", text)


def of_cards() -> Iterator[str]:
    for path in REPO.glob("images/*/src/*/image.yaml"):
        for model in yaml.safe_load(path.read_text(encoding="utf-8")).get("models", []):
            yield from (weight["env"] for weight in model.get("weights", []) if weight.get("env"))


def of_scripts() -> Iterator[str]:
    for path in SCRIPTS:
        yield from re.findall(r"""(?:environ[\w.]*[\[(] *["']|\$\{)(LARY_\w+)""", path.read_text(encoding="utf-8"))


def test_no_variable_is_missing() -> None:
    found = {*written(), *of_cards(), *of_scripts()} - OTHER
    assert {"LARY_HOME", "LARY_LOCKS", "VJEPA2_CKPT_PATH", "LARY_REQUIRE_DOCKER", "LARY_UID"} <= found
    assert sorted(found - set(re.findall(r"`(\w+)`", PAGE))) == []


def test_no_variable_is_made_up() -> None:
    files = (*SOURCES, *SCRIPTS, *REPO.glob("images/*/src/*/image.yaml"))
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    named = {name for name in re.findall(r"`([A-Z][A-Z0-9_]+)`", PAGE) if "_" in name}
    made = {f"LARY_MOUNT_{root}" for root in ("DATA", "WEIGHTS", "LATENTS", "JOB", "OUT")}
    assert sorted(name for name in named - made if name not in text) == []
