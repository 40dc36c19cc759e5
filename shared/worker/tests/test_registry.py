"""What an image says of itself, and what its source hash sees."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lary_schema.base import ContractError
from lary_schema.cards import ImageCard
from lary_worker import registry, sources
from lary_worker.selftest import selftest
from lary_worker.sources import _SAME_VALUES, code_sha256, shared_sha256


def lary_worker(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "lary_worker", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)


def test_describe_prints_the_card_with_hashes_and_versions(toy_registry: None) -> None:
    done = lary_worker("describe")
    assert done.returncode == 0, done.stderr
    card = ImageCard.parse(json.loads(done.stdout), "describe")
    assert card.name == "toy"
    assert {len(model.code_sha256 or "") for model in card.models} == {64}
    assert {"torch", "numpy", "av", "opencv", "pillow", "zarr"} <= card.libraries.keys()


def test_describe_one_model(toy_registry: None) -> None:
    card = ImageCard.parse(json.loads(lary_worker("describe", "--model", "nan").stdout), "describe")
    assert [model.key for model in card.models] == ["nan"]


def test_describe_an_unknown_model(toy_registry: None) -> None:
    done = lary_worker("describe", "--model", "nope")
    assert done.returncode == 2
    assert "no model 'nope'; it serves mean" in done.stderr


def test_describe_imports_no_torch(toy_registry: None) -> None:
    code = (
        "import sys; from lary_worker.registry import describe; describe(); print({'torch', 'zarr'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=280)
    assert done.stdout.strip() == "set()"


def test_usage_errors_are_exit_code_2() -> None:
    assert lary_worker("extract").returncode == 2


@pytest.mark.parametrize(("image", "says"), [("nope", "'nope' is not installed"), ("", "set LARY_IMAGE")])
def test_choosing_an_image(toy_registry: None, monkeypatch: pytest.MonkeyPatch, image: str, says: str) -> None:
    monkeypatch.setenv("LARY_IMAGE", image)
    if not image and len(registry._installed()) == 1:
        pytest.skip("the toy image is the only one installed, so there is nothing to choose")
    with pytest.raises(ContractError, match=says) as caught:
        registry.find_image()
    assert "toy" in str(caught.value)


def test_a_card_without_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, info = tmp_path / "lary_half", tmp_path / "lary_half-1.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").write_text("")
    (package / "image.yaml").write_text("{name: half, kind: model, module: lary_worker, models: []}")
    (info / "entry_points.txt").write_text("[lary.models]\nhalf = lary_half.models:Half\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lary-half\nVersion: 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ContractError, match=r"lary_half/image.yaml: .* without a card \['half'\]"):
        registry._installed()
    (package / "image.yaml").unlink()
    with pytest.raises(ContractError, match=r"lary_half/image.yaml: missing"):
        registry._installed()


def test_the_source_hash_follows_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "lary_hashed"
    (root / "nets").mkdir(parents=True)
    files = {
        "__init__.py": "",
        "models.py": "def load():\n    from lary_hashed.nets import vit\n",
        "nets/__init__.py": "",
        "nets/vit.py": "from ..shared import constant\nfrom . import layers\nimport numpy\n",
        "nets/layers.py": "",
        "shared.py": "constant = 1\n",
        "other.py": "",
        "image.yaml": "",
    }
    for name, text in files.items():
        (root / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = code_sha256("lary_hashed.models")
    changes = {}
    for name, text in files.items():
        (root / name).write_text(text + "\n# changed\n")
        changes[name] = code_sha256("lary_hashed.models") != before
        (root / name).write_text(text)
    assert changes == {name: name not in ("other.py", "image.yaml") for name in files}
    assert code_sha256("lary_hashed.models") == before
    with pytest.raises(ContractError, match="no source file"):
        code_sha256("lary_hashed.nothing")


def test_shared_parts_count_where_they_are_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts, root = tmp_path / "parts", tmp_path / "lary_using"
    for folder in (parts, root):
        folder.mkdir()
        (folder / "__init__.py").write_text("")
    for name in ("layers", "scale", "unused"):
        (parts / f"{name}.py").write_text("")
    (parts / "layers.py").write_text("from lary_parts.scale import sines\n")
    (root / "models.py").write_text("from lary_parts.layers import Stack\n")
    (root / "alone.py").write_text("import lary_trainer\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    folder_of = sources._package_folder
    monkeypatch.setattr(sources, "_package_folder", lambda top: parts if top == "lary_parts" else folder_of(top))
    modules = ("lary_using.models", "lary_using.alone")
    before = [code_sha256(module) for module in modules]
    changed = {}
    for file in sorted(parts.glob("*.py")):
        text = file.read_text()
        file.write_text(text + "# changed\n")
        changed[file.stem] = [code_sha256(module) != old for module, old in zip(modules, before, strict=True)]
        file.write_text(text)
    assert changed == {
        "__init__": [True, False], "layers": [True, False], "scale": [True, False], "unused": [False, False]
    }  # fmt: skip


def test_selftest_checks_cards(toy_registry: None) -> None:
    out = io.StringIO()
    selftest("mean", "cpu", out)
    with pytest.raises(ContractError, match="wrong-shape failed the self test"):
        selftest("wrong-shape", "cpu", out)
    good, bad = (json.loads(line) for line in out.getvalue().splitlines())
    assert good == {"model": "mean", "ok": True, "problems": {}}
    assert (bad["model"], bad["ok"]) == ("wrong-shape", False)
    assert bad["problems"].keys() == {"video/corrected", "image/corrected"}


def test_models_misbehave_in_the_registry(toy_registry: None, monkeypatch: pytest.MonkeyPatch) -> None:
    image: Any = registry.find_image()
    point = image.points["mean"]
    wrong = type(point)("mean", "lary_toy.models:marked", point.group)
    monkeypatch.setitem(image.points, "mean", wrong)
    with pytest.raises(ContractError, match=r"mean = lary_toy.models:marked is no lary_worker.Model"):
        registry.find_class("mean")


def test_the_source_hash_covers_the_workers_pixels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Decoding counts for every model, the shared resizes for those that use them."""
    before = {module: code_sha256(module) for module in ("lary_baseline.pixels", "lary_lapa.models")}
    for name, changed in {"decode.py": {*before}, "preprocessing.py": {"lary_lapa.models"}}.items():
        altered = tmp_path / name
        altered.write_bytes((Path(sources.__file__).with_name(name)).read_bytes() + b"\n# another\n")
        real = sources._worker_file
        monkeypatch.setattr(sources, "_worker_file", lambda m, r=real, a=altered: a if r(m).name == a.name else r(m))
        assert {m for m in before if code_sha256(m) != before[m]} == changed
        monkeypatch.undo()


def test_stores_from_before_are_found() -> None:
    """Frames of whole, upright clips are those of the first version of the reader, and fingerprints hold its hash.

    If this fails, `decode` or `orientation` was edited. Where frames stay bit for bit the same, enter the new sources
    in `sources._SAME_FRAMES`; where they do not, all stores have to be made anew, and this test says the new hash.
    """
    assert sources.decode_sha256() == "7ccb06a505e3ccb67201a5bcac934bd1f00368576173d5e53df03c5258a0b017"


def test_shared_code_is_known_to_give_the_values_of_the_first_release() -> None:
    """Fails when such a file changes: look whether values did (tests/golden), then list the hash if they did not."""
    assert shared_sha256() in _SAME_VALUES, f"list {shared_sha256()} in lary_worker.sources, or let stores be made anew"


def test_a_data_file_and_unknown_shared_code_change_the_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "lary_tabled"
    package.mkdir()
    for name in ("__init__.py", "models.py", "image.yaml", "py.typed"):
        (package / name).write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = code_sha256("lary_tabled.models")
    (package / "image.yaml").write_text("a: 1")
    assert code_sha256("lary_tabled.models") == before
    (package / "table.json").write_text("[1]")
    tabled = code_sha256("lary_tabled.models")
    (package / "table.json").write_text("[2]")
    assert len({before, tabled, code_sha256("lary_tabled.models")}) == 3
    (package / "table.json").unlink()
    monkeypatch.setattr(sources, "_SAME_VALUES", set())
    assert code_sha256("lary_tabled.models") != before
