"""compose.yaml: every image a service, in the words that both generations of docker-compose know."""

import os
import shutil
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import lary_orch
import pytest
import yaml
from lary_orch.catalog.cards import Catalog

REPOSITORY = Path(__file__).parents[1]
IMAGES = REPOSITORY / "images"
PROJECTS = [*REPOSITORY.glob("*/*/pyproject.toml"), REPOSITORY / "orchestrator/pyproject.toml"]


@pytest.fixture
def services() -> dict[str, dict[str, Any]]:
    content = yaml.safe_load((REPOSITORY / "compose.yaml").read_text(encoding="utf-8"))
    assert {"name", "version"} & set(content) == set(), "1.29 refuses one, v2 warns of the other"
    found: dict[str, dict[str, Any]] = content["services"]
    return found


def _folder(build: dict[str, str]) -> Path:
    return (REPOSITORY / build["context"] / build.get("dockerfile", "Dockerfile")).parent


def test_every_dockerfile_is_a_service_of_its_name_and_version(services: dict[str, dict[str, Any]]) -> None:
    names = {source.folder: source.card.name for _, source in Catalog.load(env={}).images}
    for dockerfile in IMAGES.glob("*/Dockerfile"):
        name = names.get(dockerfile.parent, dockerfile.parent.name)
        assert services[name]["image"].startswith(f"lary/{name}:${{LARY_VERSION:?")
        assert _folder(services[name]["build"]) == dockerfile.parent
    assert len(services) == len(list(IMAGES.glob("*/Dockerfile")))


def test_services_are_cut_off(services: dict[str, dict[str, Any]]) -> None:
    for name in set(services) - {"base"}:
        service = services[name]
        assert service["network_mode"] == "none"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        writable = {volume.split(":")[-1] for volume in service["volumes"] if not volume.endswith(":ro")}
        assert writable == {
            "arm": {"/out"},
            "probe": {"/out"},
            "data": {"/latents", "/out"},
            "lara": {"/latents", "/out"},
            "latentvla": {"/latents", "/out"},
            "libero": {"/out"},
        }.get(name, {"/latents"})


def test_the_models_that_need_a_gpu_reserve_one(services: dict[str, dict[str, Any]]) -> None:
    reserved = {
        name: service["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"]
        for name, service in services.items()
        if "deploy" in service
    }
    without = {"arm", "base", "baseline", "lara", "latentvla", "probe", "data", "libero"}
    assert reserved == {name: ["gpu"] for name in set(services) - without}


def test_the_version_stands_in_one_file(services: dict[str, dict[str, Any]]) -> None:
    version = (REPOSITORY / "VERSION").read_text(encoding="utf-8").strip()
    assert lary_orch.__version__ == version
    projects = {path: tomllib.loads(path.read_text(encoding="utf-8")) for path in PROJECTS}
    assert len(projects) > 10
    for path, project in projects.items():
        assert "version" not in project["project"], path
        assert (path.parent / project["tool"]["hatch"]["version"]["path"]).resolve() == REPOSITORY / "VERSION", path
        assert metadata.version(project["project"]["name"]) == version, "installed at another version: make .venv/.dev"
    for path in (REPOSITORY / "compose.yaml", *IMAGES.glob("*/Dockerfile")):
        assert version not in path.read_text(encoding="utf-8"), path
    assert {service["build"]["args"]["BASE"] for name, service in services.items() if name != "base"} == {
        services["base"]["image"]
    }


@pytest.mark.docker
@pytest.mark.parametrize("profile", ["build", "models", "gpu"])
def test_docker_compose_takes_it(profile: str) -> None:
    if shutil.which("docker-compose") is None:
        if os.environ.get("LARY_REQUIRE_DOCKER") == "1":
            pytest.fail("LARY_REQUIRE_DOCKER=1, and docker-compose is not installed")
        pytest.skip("docker-compose is not installed")
    done = subprocess.run(
        ["docker-compose", "--profile", profile, "config"],
        cwd=REPOSITORY,
        env=os.environ | {"LARY_VERSION": lary_orch.__version__},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"lary/base:{lary_orch.__version__}" in done.stdout
