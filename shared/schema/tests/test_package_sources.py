"""Where packages come from: pip's files and variables, as uv is given them."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from lary_schema import package_sources
from lary_schema.package_sources import OF_FILES, uv_env, with_pip_files


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder on a machine without any file of pip or uv."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    monkeypatch.setattr(package_sources, "SYSTEM", tmp_path / "etc")
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_variables_reach_uv(home: Path) -> None:
    env = uv_env(
        {
            "PIP_FIND_LINKS": "/a /b",
            "PIP_INDEX_URL": "https://mirror/simple",
            "PIP_EXTRA_INDEX_URL": "https://more/simple",
            "REQUESTS_CA_BUNDLE": "/ca.pem",
            "HOME": str(home),
        }
    )
    assert env["UV_FIND_LINKS"] == "/a,/b"
    assert env["UV_DEFAULT_INDEX"] == "https://mirror/simple"
    assert (env["UV_INDEX"], env["UV_INDEX_STRATEGY"]) == ("https://more/simple", "unsafe-best-match")
    assert (env["SSL_CERT_FILE"], env["HOME"]) == ("/ca.pem", str(home))
    assert uv_env({"PIP_CERT": "/pip.pem", "SSL_CERT_FILE": "/mine.pem"})["SSL_CERT_FILE"] == "/mine.pem"


USERS = (".pip/pip.conf", ".config/pip/pip.conf")


@pytest.mark.parametrize("place", [*USERS, "xdg/pip/pip.conf", "etc/pip.conf", "venv/pip.conf", "named.conf"])
@pytest.mark.parametrize("section", ["global", "install"])
def test_each_file_of_pip_reaches_uv(home: Path, place: str, section: str) -> None:
    write(
        home / place, f"[{section}]\nindex_url = https://mirror/simple\nfind-links =\n    /a\n    /b\ncert = /ca.pem\n"
    )
    environ = {"HOME": str(home), "XDG_CONFIG_DIRS": str(home / "xdg"), "PIP_CONFIG_FILE": str(home / "named.conf")}
    env = uv_env(environ)
    assert env["UV_DEFAULT_INDEX"] == "https://mirror/simple"
    assert (env["UV_FIND_LINKS"], env["SSL_CERT_FILE"]) == ("/a,/b", "/ca.pem")
    assert "PIP_INDEX_URL" not in env


def test_the_stronger_one_wins(home: Path) -> None:
    environ = {"HOME": str(home), "XDG_CONFIG_DIRS": str(home / "xdg")}
    strength = ["xdg/pip/pip.conf", "etc/pip.conf", *USERS, "venv/pip.conf"]
    for number, place in enumerate(strength):
        write(home / place, f"[global]\nindex-url = https://{number}\n")
        assert uv_env(environ)["UV_DEFAULT_INDEX"] == f"https://{number}", place
    named = write(home / "named.conf", "[global]\nindex-url = https://named\n[install]\nindex-url = https://install\n")
    environ["PIP_CONFIG_FILE"] = str(named)
    assert uv_env(environ)["UV_DEFAULT_INDEX"] == "https://install"
    environ["PIP_INDEX_URL"] = "https://variable"
    assert uv_env(environ)["UV_DEFAULT_INDEX"] == "https://variable"
    environ["UV_DEFAULT_INDEX"] = "https://uv"
    assert uv_env(environ)["UV_DEFAULT_INDEX"] == "https://uv"


def test_as_pip_itself_reads_them(home: Path) -> None:
    """`pip config list` of the same files; pip merges the sections when it runs."""
    values = {name: f"https://{name}.example" for name in OF_FILES}
    write(home / USERS[1], "[global]\n" + "".join(f"{name} = {value}\n" for name, value in values.items()))
    environ = {"HOME": str(home), "PATH": os.environ["PATH"], "XDG_CONFIG_DIRS": str(home)}
    argv = [sys.executable, "-m", "pip", "config", "list"]
    printed = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True).stdout
    theirs = dict(line.split("=", 1) for line in printed.splitlines())
    ours = with_pip_files(environ)
    for name, value in values.items():
        assert theirs[f"global.{name}"] == f"'{value}'"
        assert ours["PIP_" + name.upper().replace("-", "_")] == value


def unaffected(env: Mapping[str, str]) -> bool:
    return env.get("UV_DEFAULT_INDEX") != "https://mirror"


def test_files_that_do_not_count(home: Path) -> None:
    environ = {"HOME": str(home)}
    file = write(home / USERS[1], "[global]\nindex-url = https://mirror\n")
    assert not unaffected(uv_env(environ))
    assert unaffected(uv_env(environ | {"PIP_CONFIG_FILE": os.devnull}))
    assert unaffected(uv_env(environ | {"PIP_CONFIG_FILE": str(write(home / "other.conf", "[list]\n"))}))
    assert unaffected(uv_env(environ | {"UV_CONFIG_FILE": "/some/uv.toml"}))
    for broken in ("index-url = https://mirror\n", "[global\n", "[global]\n[global]\n"):
        file.write_text(broken)
        assert unaffected(uv_env(environ))
    file.write_bytes(b"[global]\nindex-url = \xff\n")
    assert unaffected(uv_env(environ))
    write(home / USERS[1], "[global]\nindex-url = https://mirror\n")
    write(home / ".config/uv/uv.toml", "")
    assert unaffected(uv_env(environ))


def test_the_systems_certificates_count_unless_the_user_says_no(home: Path) -> None:
    assert uv_env({"HOME": str(home)})["UV_SYSTEM_CERTS"] == "1"
    assert uv_env({"HOME": str(home), "UV_SYSTEM_CERTS": "0"})["UV_SYSTEM_CERTS"] == "0"
