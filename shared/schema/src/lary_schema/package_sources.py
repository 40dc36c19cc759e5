"""Where Python packages come from on this machine: pip's files and variables, handed on to uv, which reads neither."""

import configparser
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

HANDED_ON = (
    ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"),
    ("PIP_EXTRA_INDEX_URL", "UV_INDEX"),
    ("PIP_CERT", "SSL_CERT_FILE"),
    ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"),
)
"""pip's settings, which uv does not read, and their names in uv. One that is set for uv wins."""
OF_FILES = ("index-url", "extra-index-url", "find-links", "cert", "proxy")
SYSTEM = Path("/etc")
SECTIONS = ("global", "install")
"""Of pip's files, the later one wins (https://pip.pypa.io/en/stable/topics/configuration/)."""


def uv_env(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for uv: the caller's, with pip's settings translated, those of its files too.

    Where uv has a file of its own, pip's files are left alone: a variable would override it.
    """
    pip = dict(environ) if _has_uv_file(environ) else with_pip_files(environ)
    env = dict(environ)
    # pip separates locations by spaces, uv by commas.
    if links := pip.get("PIP_FIND_LINKS"):
        env.setdefault("UV_FIND_LINKS", ",".join(links.split()))
    for pip_name, uv_name in HANDED_ON:
        if value := pip.get(pip_name):
            env.setdefault(uv_name, " ".join(value.split()))
    if pip.get("PIP_EXTRA_INDEX_URL"):
        # As pip does: the best version of all indexes, not the first index that has the name.
        env.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    if proxy := pip.get("PIP_PROXY"):
        env.setdefault("ALL_PROXY", proxy)
    # An institute's certificates are in the system's list, where browsers and git look as well.
    env.setdefault("UV_SYSTEM_CERTS", "1")
    return env


def with_pip_files(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables, and as `PIP_...` what pip's files say where no variable says it. A file that is no INI is none."""
    found: dict[str, str] = {}
    for path in _pip_files(environ):
        parser = _PipFile()
        try:
            parser.read(path, encoding="utf-8")
        except (OSError, UnicodeDecodeError, configparser.Error):
            continue
        for section in SECTIONS:
            for name in OF_FILES:
                if value := parser.get(section, name, fallback=""):
                    found["PIP_" + name.upper().replace("-", "_")] = value
    return found | dict(environ)


class _PipFile(configparser.RawConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr.lower().replace("_", "-")


def _pip_files(environ: Mapping[str, str]) -> Iterator[Path]:
    """In pip's order, the strongest last: the system's, the user's, the environment's, the one that is named."""
    named = environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return
    for folder in reversed((environ.get("XDG_CONFIG_DIRS") or str(SYSTEM / "xdg")).split(os.pathsep)):
        yield Path(folder, "pip/pip.conf")
    yield SYSTEM / "pip.conf"
    if (home := environ.get("HOME", "")) and not (named and Path(named).is_file()):
        yield Path(home, ".pip/pip.conf")
        yield _of_user(environ, home) / "pip/pip.conf"
    yield Path(sys.prefix, "pip.conf")
    if named:
        yield Path(named)


def _has_uv_file(environ: Mapping[str, str]) -> bool:
    home = environ.get("HOME", "")
    files = [SYSTEM / "uv/uv.toml", *([_of_user(environ, home) / "uv/uv.toml"] if home else [])]
    return "UV_CONFIG_FILE" in environ or any(file.is_file() for file in files)


def _of_user(environ: Mapping[str, str], home: str) -> Path:
    return Path(environ.get("XDG_CONFIG_HOME") or Path(home, ".config"))
