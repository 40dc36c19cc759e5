"""Dockerfiles: what a container runs is what the card says, and the base image's context has all that it copies."""

import json
import re
import sysconfig
from pathlib import Path

import pytest
import yaml
from lary_conformance.new_model import make_model_folder

REPO = Path(__file__).parents[1]
BASE = REPO / "images" / "base" / "Dockerfile"
IMAGES = sorted(path.parent for path in (REPO / "images").glob("*/Dockerfile") if path != BASE)


def entry_point(folder: Path) -> list[str]:
    """The last one of the image, or that of the base."""
    texts = [file.read_text(encoding="utf-8") for file in (BASE, folder / "Dockerfile")]
    found: list[str] = json.loads(re.findall(r"(?m)^ENTRYPOINT (.*)$", "\n".join(texts))[-1])
    return found


def module(folder: Path) -> str:
    (card,) = folder.glob("src/*/image.yaml")
    return str(yaml.safe_load(card.read_text(encoding="utf-8"))["module"])


@pytest.mark.parametrize("folder", IMAGES, ids=lambda folder: folder.name)
def test_a_container_runs_the_module_of_its_card(folder: Path) -> None:
    assert entry_point(folder) == ["python", "-m", module(folder)]


@pytest.mark.parametrize("train", [False, True])
def test_so_does_that_of_a_new_model(tmp_path: Path, train: bool) -> None:
    make_model_folder("my-lam", tmp_path / "my-lam", REPO / "images" / "baseline", train=train)
    assert entry_point(tmp_path / "my-lam") == ["python", "-m", module(tmp_path / "my-lam")]


def test_the_context_of_the_base_image_holds_what_it_copies() -> None:
    kept = (REPO / ".dockerignore").read_text(encoding="utf-8").split()
    for source in re.findall(r"(?m)^COPY (\S+) ", BASE.read_text(encoding="utf-8")):
        parts = [source] if (REPO / source).is_file() else [f"{source}/pyproject.toml", f"{source}/src"]
        for part in parts:
            assert (REPO / part).exists()
            assert f"!{part}" in kept, f"{BASE} copies {source}, .dockerignore leaves out {part}"


def test_the_standard_library_is_compiled_where_the_parent_left_it_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very command of the base image, on a library of the test's own: a fault in it is no fault of the build."""
    (command,) = re.findall(r'(?ms)^RUN python3 -c "(import compileall.*?)"$', BASE.read_text(encoding="utf-8"))
    names = ("json/decoder.py", "broken.py", "test/support.py", "lib2to3/tests/data.py", "site-packages/other.py")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("print 1" if name == "broken.py" else "value = 1\n")
    monkeypatch.setattr(sysconfig, "get_path", {"stdlib": str(tmp_path)}.__getitem__)
    exec(command.replace("\\\n", ""))
    assert [path.name.partition(".")[0] for path in tmp_path.rglob("*.pyc")] == ["decoder"]
    (compiled,) = tmp_path.rglob("*.pyc")
    before = compiled.stat().st_mtime_ns
    exec(command.replace("\\\n", ""))
    assert compiled.stat().st_mtime_ns == before
