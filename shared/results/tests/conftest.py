"""Results as probes leave them, made of a few numbers, and a reader of HTML pages that refuses bad ones."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from lary_orch.workspace import Workspace
from lary_schema.atomic import publish_text
from lary_schema.results import (
    EpochScore,
    Interval,
    ProbeResult,
    RowCount,
    SeedScores,
    SplitScore,
    StoreSettings,
    StoreTrace,
)

Write = Callable[..., Path]
USUAL = {"decoder": "pyav", "precision": "fp32", "dtype": "float16", "seed": 0}


def split_score(value: float, rows: int, *, classify: bool, failed: int = 0) -> SplitScore:
    epoch = EpochScore(
        epoch=3, value=value, selection=value, macro=value if classify else None, r2=None if classify else 1 - value
    )
    early = epoch.model_copy(update={"epoch": 1, "value": value - 0.02})
    last = epoch.model_copy(update={"epoch": 9, "value": value - 0.01})
    return SplitScore(
        value=value,
        interval=Interval(low=value - 0.05, high=value + 0.05),
        seeds=(SeedScores(seed=0, early=early, best=epoch, last=last),),
        floor=0.25 if classify else 1.02,
        chance=0.125 if classify else None,
        per_group={} if classify else {"position": value / 2},
        rows=RowCount(used=rows - failed, failed=failed),
    )


def make_result(
    model: str,
    dataset: str,
    values: Mapping[str, float],
    *,
    rows: Mapping[str, int] | None = None,
    metric: str = "top1",
    failed: int = 0,
    csv: str = "c5",
    image: str = "lary/x:1",
    settings: Mapping[str, Any] | None = None,
    **fields: Any,
) -> ProbeResult:
    """`values` and `rows` by split; `rows` names train too; `settings` are those that are not usual."""
    counts = {"train": 100} | dict.fromkeys(values, 50) | dict(rows or {})
    classify = metric == "top1"
    train, *evaluated = (
        StoreTrace(
            split=split,
            path=f"{dataset}/{split}/{model}/store.zarr",
            fingerprint="f1" * 32,
            image=image,
            image_digest="sha256:d1",
            code_sha256="c0" * 32,
            weights={"model": "ab" * 32},
            metadata_sha256=csv * 32,
            settings=None if settings is None else StoreSettings.model_validate(USUAL | dict(settings)),
        )
        for split in ("train", *values)
    )
    document = {
        "kind": "classify" if classify else "regress",
        "metric": metric,
        "run": "run-1",
        "model": model,
        "variant": "lary-v1",
        "dataset": dataset,
        "protocol": "lary-v1",
        "control": "none",
        "fingerprint": "fe" * 32,
        "splits": {s: split_score(v, counts[s], classify=classify, failed=failed) for s, v in values.items()},
        "train_rows": RowCount(used=counts["train"], failed=failed),
        "stores": (train, *evaluated),
        "probe_image": "lary/probe:1",
        "probe_image_digest": None,
        "probe_code_sha256": "0e" * 32,
        "code_revision": "abc",
        "device": "cpu",
        "libraries": {"torch": "2"},
        "seconds": 1.5,
    }
    return ProbeResult.model_validate(document | fields)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.locate(tmp_path / "ws", env={})


@pytest.fixture
def write(workspace: Workspace) -> Write:
    """Put a result on disk; later ones are newer. Gives its folder."""
    count = 0

    def written(*arguments: Any, **fields: Any) -> Path:
        nonlocal count
        count += 1
        result = make_result(*arguments, **fields)
        name = f"{result.kind}-{result.variant}-{result.protocol}-{result.control}-{count}"
        folder = workspace.results / result.run / result.model / result.dataset / name
        publish_text(folder / "result.json", result.to_json())
        os.utime(folder / "result.json", (1_700_000_000 + count,) * 2)
        return folder

    return written


def write_rows(
    folder: Path,
    split: str,
    scores: Any,
    rows: Any = None,
    groups: Sequence[str] | None = None,
    **hashes: Any,
) -> None:
    """`row_scores_SPLIT.npz` as probes write it, and the result's value to fit; scores (seeds, n) or (n,).

    `hashes` are `target` and `train_target`, which older probes did not write.
    """
    import json

    import numpy as np

    values = np.atleast_2d(np.asarray(scores, np.float64))
    numbers = np.arange(values.shape[1]) if rows is None else np.asarray(rows)
    names, codes = np.unique(groups, return_inverse=True) if groups is not None else (np.array([], "U1"), numbers)
    np.savez(
        folder / f"row_scores_{split}.npz",
        row=numbers.astype(np.int64),
        group=codes.astype(np.int64),
        group_names=names.astype(np.str_),
        seed=np.arange(len(values)),
        score=values,
        **hashes,
    )
    path, stat = folder / "result.json", (folder / "result.json").stat()
    document = json.loads(path.read_text())
    document["splits"][split]["value"] = float(values.mean())
    path.write_text(json.dumps(document))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.fixture(name="make_result")
def _make_result() -> Callable[..., ProbeResult]:
    return make_result


@pytest.fixture(name="write_rows")
def _write_rows() -> Callable[..., None]:
    return write_rows


# --- pages ------------------------------------------------------------------------------------

VOID = {"meta", "img", "br", "hr", "wbr"}


@dataclass
class Node:
    name: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: "list[Node | str]" = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text in it, spaces made single."""
        return " ".join("".join(c if isinstance(c, str) else f" {c.text} " for c in self.children).split())

    def all(self, name: str = "", class_: str = "", **attributes: str) -> "list[Node]":
        """Descendants by name, one of their classes, and attributes."""
        found = []
        for child in self.children:
            if isinstance(child, Node):
                same = all(child.attributes.get(k.replace("_", "-")) == v for k, v in attributes.items())
                if (not name or child.name == name) and same and (not class_ or class_ in child.classes):
                    found.append(child)
                found += child.all(name, class_, **attributes)
        return found

    def one(self, name: str = "", class_: str = "", **attributes: str) -> "Node":
        (found,) = self.all(name, class_, **attributes)
        return found

    @property
    def classes(self) -> list[str]:
        return self.attributes.get("class", "").split()

    def rows(self) -> list[list[str]]:
        """Cells of a table, as text."""
        return [[cell.text for cell in row.children if isinstance(cell, Node)] for row in self.all("tr")]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Node("document")
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].name == tag, f"</{tag}> closes <{self.open[-1].name}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read_page(content: bytes) -> Node:
    """The document of a page that is balanced, has each id once, leads nowhere outside and runs one script."""
    reader = _Reader()
    reader.feed(content.decode())
    reader.close()
    assert [node.name for node in reader.open] == ["document"]
    nodes = reader.root.all()
    ids = [node.attributes["id"] for node in nodes if "id" in node.attributes]
    assert len(ids) == len(set(ids))
    for node in nodes:
        assert not [name for name in node.attributes if name.startswith("on")]
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            _check_link(node.attributes.get(name), ids)
    assert len(reader.root.all("script")) == 1
    styles = reader.root.one("style").text
    assert "url(" not in styles
    assert "@import" not in styles
    assert not reader.root.all("link") + reader.root.all("iframe")
    return reader.root


def _check_link(link: str | None, ids: list[str]) -> None:
    if link is not None and not link.startswith("data:image/png;base64,"):
        assert link.startswith("#"), link
        assert link[1:] in ids, f"{link} leads nowhere"


@pytest.fixture(name="read_page")
def _read_page() -> Callable[[bytes], Node]:
    return read_page
