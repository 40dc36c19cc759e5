import os
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from lary_orch.catalog.source import ImageSource
from lary_orch.runtimes import environments
from lary_orch.runtimes.environments import (
    FROM_FIND_LINKS,
    FROM_INDEX,
    MARKER,
    Checkout,
    CurrentEnvironment,
    OwnEnvironments,
    make_recipe,
    torch_source,
)
from lary_schema.base import ContractError
from lary_schema.cards import ImageCard

Kind = Callable[..., ImageSource]
Calls = list[list[str]]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    root = tmp_path / "my bench"
    shared = ("shared/schema", "shared/policy", "shared/worker", "shared/trainer", "shared/parts")
    for folder in (*shared, "images/base", "images/toy", "images/scorer"):
        (root / folder / "src").mkdir(parents=True)
        (root / folder / "pyproject.toml").write_text(f"[project]\nname = '{folder}'\n")
    (root / "images/base/constraints.txt").write_text("torch==2.13.0\n")
    return Checkout(root)


@pytest.fixture
def image(checkout: Checkout) -> Kind:
    def make(name: str = "toy", kind: str = "model") -> ImageSource:
        card = ImageCard.parse({"name": name, "kind": kind, "module": "lary_worker"}, "test")
        return ImageSource(card, checkout.root / "images" / name)

    return make


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The commands for uv, which are noted instead of run."""
    seen: Calls = []
    monkeypatch.setattr(environments, "_uv", lambda command, environ, failed: seen.append(list(command)))
    return seen


def _own(tmp_path: Path, checkout: Checkout) -> OwnEnvironments:
    return OwnEnvironments(tmp_path / "envs", checkout, {"LARY_TORCH_BACKEND": "cpu"})


def test_what_a_model_image_installs(checkout: Checkout, image: Kind) -> None:
    root = checkout.root
    assert make_recipe(image(), checkout, "cpu").install == (
        *("-c", f"{root}/images/base/constraints.txt", "--torch-backend", "cpu"),
        *(
            "-e",
            f"{root}/shared/schema[store]",
            "-e",
            f"{root}/shared/policy",
            "-e",
            f"{root}/shared/worker",
            "-e",
            f"{root}/shared/trainer",
            "-e",
            f"{root}/shared/parts",
            "-e",
            f"{root}/images/toy",
        ),
    )


def test_data_tools_read_media_as_the_worker_does(checkout: Checkout, image: Kind) -> None:
    assert f"{checkout.root}/shared/worker" in make_recipe(image("toy", "tools"), checkout, "cpu").install


def test_a_probe_needs_no_worker_and_a_local_wheel_no_backend(checkout: Checkout, image: Kind) -> None:
    install = make_recipe(image("scorer", "probe"), checkout, FROM_FIND_LINKS).install
    assert f"{checkout.root}/shared/worker" not in install
    assert "--torch-backend" not in install
    of_the_index = make_recipe(image("scorer", "probe"), checkout, FROM_INDEX)
    assert of_the_index.install == install
    assert of_the_index.name != make_recipe(image("scorer", "probe"), checkout, FROM_FIND_LINKS).name


def test_a_simulator_gets_little_of_ours_its_extra_and_its_own_pins(checkout: Checkout, image: Kind) -> None:
    root = checkout.root
    pins = root / "images/scorer/requirements.txt"
    pins.write_text("mujoco==3.17.0\n")
    recipe = make_recipe(image("scorer", "simulator"), checkout, "cpu")
    assert recipe.install == (
        *("-c", f"{root}/images/base/constraints.txt", "-c", str(pins), "--torch-backend", "cpu"),
        *("-e", f"{root}/shared/schema", "-e", f"{root}/shared/policy", "-e", f"{root}/shared/demo"),
        *("-e", f"{root}/images/scorer[simulator]"),
    )
    pins.write_text("mujoco==3.16.0\n")
    assert make_recipe(image("scorer", "simulator"), checkout, "cpu").name != recipe.name


def test_the_name_changes_with_what_is_installed(checkout: Checkout, image: Kind) -> None:
    names = [make_recipe(image(), checkout, "cpu").name, make_recipe(image(), checkout, "cu128").name]
    for file in (
        "images/toy/pyproject.toml",
        "shared/worker/pyproject.toml",
        "shared/trainer/pyproject.toml",
        "shared/parts/pyproject.toml",
        "images/base/constraints.txt",
    ):
        with (checkout.root / file).open("a") as opened:
            opened.write("# changed\n")
        names.append(make_recipe(image(), checkout, "cpu").name)
    assert len(set(names)) == 7
    assert all(name.startswith("toy-") for name in names)
    assert make_recipe(image(), checkout, "cpu").name == names[-1]


def test_an_environment_is_made_once(tmp_path: Path, checkout: Checkout, image: Kind, calls: Calls) -> None:
    said: list[str] = []
    own = _own(tmp_path, checkout)
    prepared = own.prepare(image(), said.append)
    assert own.prepare(image(), said.append) == prepared
    assert [command[1:3] for command in calls] == [["venv", "--quiet"], ["pip", "install"]]
    assert calls[0][-3:] == ["--python", sys.executable, str(tmp_path / "envs" / prepared.ref)]
    assert own.python(prepared) == tmp_path / "envs" / prepared.ref / "bin" / "python"
    assert str(own.python(prepared)) in calls[1]
    assert said == [f"making environment {prepared.ref} (once; the first one downloads torch)"]


def test_what_a_killed_creation_left_is_redone(tmp_path: Path, checkout: Checkout, image: Kind, calls: Calls) -> None:
    own = _own(tmp_path, checkout)
    env = tmp_path / "envs" / make_recipe(image(), checkout, "cpu").name
    (env / "half").mkdir(parents=True)
    own.prepare(image(), lambda line: None)
    assert not (env / "half").exists()
    assert (env / MARKER).is_file()
    assert len(calls) == 2


def test_two_at_once_make_it_once(tmp_path: Path, checkout: Checkout, image: Kind, calls: Calls) -> None:
    said: queue.Queue[str] = queue.Queue()
    own = _own(tmp_path, checkout)
    lock = tmp_path / "envs" / f"{make_recipe(image(), checkout, 'cpu').name}.lock"
    both = [threading.Thread(target=own.prepare, args=(image(), said.put)) for _ in range(2)]
    with environments._alone(lock, said.put):
        for thread in both:
            thread.start()
        assert [said.get().partition(" that")[0] for _ in both] == ["waiting for another process"] * 2
    for thread in both:
        thread.join()
    assert [command[1] for command in calls] == ["venv", "pip"]


def test_a_failed_install_says_what_to_do(tmp_path: Path, checkout: Checkout, image: Kind) -> None:
    with pytest.raises(ContractError, match=r"(?s)pip install.*--env current.*LARY_TORCH_BACKEND"):
        _own(tmp_path, checkout).prepare(image(), lambda line: None)
    # Not marked as finished: the next run tries again.
    assert not list(tmp_path.glob(f"envs/*/{MARKER}"))


def test_an_image_without_a_folder(checkout: Checkout, tmp_path: Path) -> None:
    card = ImageCard(name="far", kind="model", module="lary_worker", ref="registry/far:1")
    with pytest.raises(ContractError, match="registry/far:1"):
        _own(tmp_path, checkout).prepare(ImageSource(card, None), lambda line: None)


def test_the_identity_follows_the_sources(tmp_path: Path, checkout: Checkout, image: Kind, calls: Calls) -> None:
    for interpreters in (_own(tmp_path, checkout), CurrentEnvironment(checkout)):
        source = checkout.root / "images/toy/src/model.py"
        source.write_text("a = 1\n")
        before = interpreters.prepare(image(), lambda line: None)
        assert interpreters.prepare(image(), lambda line: None).identity == before.identity
        os.utime(source, ns=(1, 1))
        assert interpreters.prepare(image(), lambda line: None).identity != before.identity
        (checkout.root / "images/toy/src/__pycache__").mkdir(exist_ok=True)
        touched = interpreters.prepare(image(), lambda line: None).identity
        (checkout.root / "images/toy/src/__pycache__/model.pyc").write_bytes(b"x")
        assert interpreters.prepare(image(), lambda line: None).identity == touched


def test_the_current_interpreter_says_what_to_install(checkout: Checkout, image: Kind) -> None:
    current = CurrentEnvironment(checkout)
    prepared = current.prepare(image(), lambda line: None)
    assert current.python(prepared) == Path(sys.executable)
    assert f"-e '{checkout.root}/images/toy'" in current.hint(prepared)


class TestTorch:
    def test_the_users_choice_is_first(self) -> None:
        assert torch_source({"LARY_TORCH_BACKEND": "cu128", "PIP_FIND_LINKS": "https://wheels"}) == "cu128"

    def test_a_wheel_at_hand(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(environments, "find_gpus", list)
        environ = {"PIP_FIND_LINKS": f"{tmp_path / 'no'} {tmp_path}"}
        assert torch_source(environ) == "cpu"
        (tmp_path / "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl").touch()
        assert torch_source(environ) == FROM_FIND_LINKS

    def test_the_hardware(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(environments, "find_gpus", lambda: ["a GPU"])
        assert torch_source({}) == "auto"


def test_a_failed_environment_says_what_uv_said(
    tmp_path: Path, checkout: Checkout, image: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\necho 'no such package' >&2\nexit 2\n")
    uv.chmod(0o755)
    monkeypatch.setattr("uv.find_uv_bin", lambda: str(uv))
    with pytest.raises(ContractError) as caught:
        OwnEnvironments(tmp_path / "envs", checkout, {"LARY_TORCH_BACKEND": "cpu"}).prepare(image(), lambda line: None)
    first, second, *_ = str(caught.value).splitlines()
    assert first.startswith(f"environment {tmp_path / 'envs'}/toy-")
    assert first.endswith(" cannot be made: uv venv ends with exit 2")
    assert second == "no such package"
