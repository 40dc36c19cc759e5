"""The checks of `act`: on the policy of docs/own-model.md, and on ones that break the contract, one fault each."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from lary_conformance import acting, examine, refusals
from lary_conformance.case import Verdict, verdict_of
from lary_conformance.subject import Subject, open_subject
from lary_orch.catalog.cards import Catalog
from lary_orch.runtimes.choose import local
from lary_orch.workspace import Workspace
from lary_schema.base import ContractError

REPO = Path(__file__).parents[3]
WEIGHTS = "source: here, weights: [{name: model, path: x.bin, license: MIT}]"
BENCHMARKS = tuple(card for _, source in Catalog.load(env={}).images for card in source.card.benchmarks)


def block(title: str) -> str:
    """A block of the page by its title."""
    text = (REPO / "docs/own-model.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf'```\w+ title="policy: {re.escape(title)}"\n(.*?)```\n', text, re.DOTALL)
    return str(found)


def make_image(folder: Path, code: tuple[str, str], card: tuple[str, str]) -> Path:
    """The page's folder, installed where its sources are, with one piece of its code and of its card replaced."""
    package, info = folder / "src/lary_my_policy", folder / "src/lary_my_policy-0.1.0.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    for file, (old, new) in {"my_policy.py": code, "image.yaml": card}.items():
        assert old in block(file)
        (package / file).write_text(block(file).replace(old, new))
    (package / "__init__.py").touch()
    (folder / "pyproject.toml").write_text(block("pyproject.toml"))
    (folder / "Dockerfile").write_text(block("Dockerfile"))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lary-my-policy\nVersion: 0.1.0\n")
    points = re.search(r'\[project\.entry-points\."lary\.policies"\]\n(.*)\n', block("pyproject.toml"))
    assert points is not None
    (info / "entry_points.txt").write_text("[lary.policies]\n" + points[1].replace('"', "") + "\n")
    return folder


@pytest.fixture
def subject(warm_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Subject]:
    """`subject(old, new)`: the policy with a fault in its code (or `card=`), under examination."""

    def opened(old: str = "", new: str = "", card: tuple[str, str] = ("", "")) -> Subject:
        folder = make_image(tmp_path / "image", (old, new), card)
        monkeypatch.setattr(sys, "executable", str(warm_python))
        monkeypatch.setenv("PYTHONPATH", str(folder / "src"))
        (source,) = (s for _, s in Catalog.load([folder]).images if s.folder == folder)
        runtime = local("process", Workspace.locate(tmp_path / "ws", env={}), "current")
        return open_subject(runtime, source, tmp_path, tmp_path, benchmarks=BENCHMARKS)

    return opened


def verdict(subject: Subject, check: str) -> Verdict:
    (found,) = (verdict_of(case) for case in acting.cases(subject) if case.check == check)
    return found


def test_the_policy_of_the_page_keeps_the_contract(subject: Callable[..., Subject]) -> None:
    found = {one.check: one for one in examine(subject())}
    states = {check: one.state for check, one in found.items()}
    assert states == {
        **dict.fromkeys(("describe", "bad job", "other version", "policy", "act", "act again", "no message"), "ok"),
        **{"other protocol": "ok", "another task": "ok", "simulator lost": "ok", "isolation": "skipped"},
    }, found
    assert found["act"].message == "demo_turn, reads image, chunks of 8"
    assert found["simulator lost"].message.startswith("exit 8: ")


ACTIONS = ".astype(np.float32)"
LOADS = "self.scale = 0.1"
REFUSE = 'raise __import__("lary_schema.base").base.ContractError("no arm")'
DOUBLED = (
    LOADS + "; from lary_policy.wire import Channel; send, seen = Channel.send, []\n        Channel.send = "
    "lambda s, m, t: (send(s, m, t), send(s, m, t) if m.kind == 'actions' and {} else 0)"
)
LAST = f"not seen.append(1) and len(seen) == {2 * acting.STEPS}"
FAULTS = {
    "NaN": (ACTIONS, ".astype(np.float32) * np.nan", "act", "not finite"),
    "float64": (ACTIONS, "", "act", "float64"),
    "one action without its chunk": (ACTIONS, f"{ACTIONS}[0]", "act", "shape [3]"),
    "none": (ACTIONS, f"{ACTIONS}[:0]", "act", "shape [0, 3]"),
    "another width": ("(8, self.width)", "(8, self.width + 1)", "act", "shape [8, 4]"),
    "too many": ("(8, self.width)", "(1025, self.width)", "act", "shape [1025, 3]"),
    "another seed": ("default_rng(seed)", "default_rng()", "act", "other actions"),
    "a wish": ("return tuple(name", 'return ("sound",) + tuple(name', "act", "it wants ['sound', 'image']"),
    "refuses all": ("self.width =", f"{REFUSE}\n        self.width =", "act", "of the catalog: demo_turn: no"),
    "refuses to begin": ("self.draws =", f"{REFUSE}\n        self.draws =", "act", "`error` after `reset`: no arm"),
    "breaks in `act`": ("bright = ", "bright = 1 / 0 + ", "act", "closed the connection"),
    "does not load": (LOADS, "1 / 0", "act", "nobody listens"),
    "another exit code": (LOADS, f"{LOADS}; import atexit, os; atexit.register(os._exit, 9)", "act", "exit 9 after"),
    "protocol 2": (LOADS, f"{LOADS}; from lary_policy import talk; talk.VERSION = 2", "act", "fits no benchmark"),
    "two replies": (LOADS, DOUBLED.format("True"), "act", "it was shown observation 1 and replied to 0"),
    "two replies to the last one": (LOADS, DOUBLED.format(LAST), "act", "more than one reply"),
    "one connection": (
        LOADS, f"{LOADS}; from lary_policy import talk; talk.PeerLostError = talk.SilentError", "act again", "no",
    ),
    "waits, and serves no other": (
        LOADS, f"{LOADS}; from lary_policy import talk; first = talk._answer\n        talk._answer = "
        "lambda *a, seen=[]: seen.append(1) or first(*a) and (len(seen) < 2 or 1 / 0)", "another task", "exit 1, 8",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "check", "message"), FAULTS.values(), ids=FAULTS)
def test_a_policy_that_breaks_the_contract_is_found(
    subject: Callable[..., Subject], old: str, new: str, check: str, message: str
) -> None:
    found = verdict(subject(old, new), check)
    assert (found.state, bool(found.remedy)) == ("failed", True), found
    assert message in found.message


@pytest.mark.parametrize(
    ("old", "new", "states"),
    [
        ("source: here", "source: here, actions: 5", {"act": "skipped"}),
        ("source: here", "source: here, actions: 7", {"act": "ok"}),
        ("source: here", WEIGHTS, {"act": "skipped", "missing weights": "ok"}),
        ("key: my-policy", "key: my-policy, pattern: my-.*", {"act": "skipped", "policy": "ok"}),
    ],
)  # fmt: skip
def test_what_a_card_says(subject: Callable[..., Subject], old: str, new: str, states: dict[str, str]) -> None:
    examined = subject(card=(old, new))
    assert {check: verdict(examined, check).state for check in states} == states


def test_an_image_of_nothing_is_refused(subject: Callable[..., Subject]) -> None:
    with pytest.raises(ContractError, match="policies"):
        subject(card=("{key: my-policy, title: Brighter is larger, license: MIT, source: here}", "{}"))


def test_a_job_that_is_none_is_refused(subject: Callable[..., Subject]) -> None:
    found = {case.check: verdict_of(case).message for case in refusals.cases(subject())}
    assert set(found) == {"bad job", "other version"}
    assert all(message.startswith("exit 2: ") for message in found.values())
