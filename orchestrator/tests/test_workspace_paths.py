"""Paths are made plain once, where they enter: by option, by variable, relative, with `..`, `~` and links."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from lary_orch.catalog.cards import catalog_folders
from lary_orch.workspace import Workspace
from lary_schema.base import ContractError
from lary_schema.paths import normalised

SPELLINGS = ["{root}/a/ws", "{root}/a/../a/ws", "../a/ws", "./../a/ws/../ws", "../b/../a/ws", "~/a/ws", "~/b/../a/ws"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that holds `a` and `b`; `b` is the current one."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "b")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("by", ["option", "variable"])
def test_every_spelling_of_a_folder_is_the_same_folder(here: Path, spelling: str, by: str) -> None:
    given = spelling.format(root=here)
    names = ("LARY_HOME", "DATA_DIR", "LARY_LA_DIR", "MODEL_DIR", "LARY_ROOT")
    if by == "option":
        found = Workspace.locate(*[Path(given)] * 5, env={})
    else:
        found = Workspace.locate(env=dict.fromkeys(names, given))
    ws = here / "a" / "ws"
    metadata = ws if by == "option" else ws / "data"
    assert (found.root, found.data, found.latents, found.weights) == (ws, ws, ws, ws)
    assert found.metadata == metadata
    assert catalog_folders([Path(given).parent / "../a"], {}) == [here / "a"]


def test_dots_after_a_link_lead_where_the_system_says(here: Path) -> None:
    (here / "a/deep").mkdir()
    (here / "b/link").symlink_to(here / "a/deep")
    assert normalised(Path("link/../x")) == here / "a/x"
    assert normalised(Path("link/x")) == here / "b/link/x"


def test_a_home_that_is_not_known_is_refused(here: Path) -> None:
    with pytest.raises(ContractError, match=r"^~nobody-of-this-name/x: cannot be used as a folder"):
        normalised(Path("~nobody-of-this-name/x"))


@pytest.mark.parametrize("variable", ["LARY_HOME", "DATA_DIR", "LARY_LA_DIR", "MODEL_DIR"])
@pytest.mark.parametrize("make", [Path.touch, os.mkfifo, lambda path: path.symlink_to(os.devnull)])
def test_what_is_no_folder_is_refused(here: Path, make: Callable[[Path], object], variable: str) -> None:
    make(here / "a/ws")
    with pytest.raises(ContractError, match=r"a/ws: cannot be used as a folder: something else stands there"):
        Workspace.locate(env={variable: str(here / "a/ws")})
