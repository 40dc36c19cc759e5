"""Files that decide an episode are those of the package's version."""

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from lary_libero.installed import verify
from lary_schema.base import ContractError

FILES = {"world/init/a.npz": b"states", "world/init/a.npz2": b"more", "world/init/b.npz": b"other", "world/a": b"1"}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distribution with a list of its files, one of them without a hash."""
    info = tmp_path / "toy_world-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-world\nVersion: 1\n", encoding="utf-8")
    lines = ["toy_world-1.dist-info/RECORD,,"]
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
        sha256 = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        lines.append(f"{name},sha256={sha256},{len(content)}")
    (info / "RECORD").write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


CHANGES: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "one bit": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "gone": Path.unlink,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_changed_is_named(site: Path, name: str, change: Callable[[Path], object]) -> None:
    verify("toy-world", ["world/"])
    change(site / name)
    with pytest.raises(ContractError, match="install toy-world anew") as caught:
        verify("toy-world", ["world/"])
    assert str(caught.value).startswith(f"{site / name}: ")
    # Others are not looked at.
    verify("toy-world", [other for other in FILES if not name.startswith(other)])


def test_without_a_list_nothing_is_said(site: Path) -> None:
    verify("toy-world-2", ["world/"])
    (site / "toy_world-1.dist-info/RECORD").unlink()
    (site / "world/a").write_bytes(b"2")
    verify("toy-world", ["world/"])
