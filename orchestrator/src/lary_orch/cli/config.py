"""`--config FILE.yaml` and `--save FILE.yaml`: what `run` is asked for, as a file.

Keys are the long options without their dashes (`model: [a, b]`, `data-dir: /data`, `control: false`). What the command
line says goes before the file. Relative paths in a file are relative to its folder.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import yaml
from click.core import ParameterSource
from lary_schema.atomic import publish_text
from lary_schema.base import ContractError, unknown_key
from lary_schema.paths import normalised
from lary_schema.yaml_files import read_yaml

from lary_orch.cli.options import Function, option

NOT_ASKED = ("config", "save", "json", "dry-run", "help")
"""How a command answers is no part of what it is asked."""
RUN_ALONE = ("attempts", "detach")
"""Options of `run` that `plan` has no use for."""
FILE = click.Path(dir_okay=False, path_type=Path)
GIVEN = (ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP)


def config_option(function: Function) -> Function:
    """`--config`, read before all other options."""
    return option(
        "--config",
        type=FILE,
        is_eager=True,
        expose_value=False,
        callback=_read,
        help="Take options from a file, as `plan --save` writes it; options typed here go first.",
    )(function)


def _name(parameter: click.Parameter) -> str:
    """The longest of its long names."""
    return max((flag.lstrip("-") for flag in parameter.opts if flag.startswith("--")), key=len, default="")


def _read(context: click.Context, _: click.Parameter, file: Path | None) -> None:
    if file is None:
        return
    content = read_yaml(file)
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ContractError(f"{file}: is to hold options by name, such as `model: [frame-diff]`")
    known = {_name(one): one for one in context.command.params if _name(one) not in NOT_ASKED}
    values = {}
    for name, value in content.items():
        if name in known:
            values[str(known[name].name)] = _value(known[name], value, file)
        elif name not in RUN_ALONE:
            raise ContractError(f"{file}: {unknown_key('option', name, known)}")
    context.default_map = {**(context.default_map or {}), **values}


def _value(parameter: click.Parameter, value: Any, file: Path) -> Any:
    """As click takes it: several where an option is repeatable, paths from the file's folder."""
    several = value if isinstance(value, list) else [value]
    if any(isinstance(one, dict | list) or one is None for one in several):
        raise ContractError(f"{file}: {_name(parameter)}: give text, a number, true or false, or a list of them")
    if not parameter.multiple and len(several) != 1:
        raise ContractError(f"{file}: {_name(parameter)}: takes one value")
    found = [_from(file, one) if _is_path(parameter, one) else one for one in several]
    return found if parameter.multiple else found[0]


def _from(file: Path, path: str) -> str:
    found = (file.parent / Path(path).expanduser()).absolute()
    return str(normalised(found) if found.is_dir() else normalised(found.parent) / found.name)


def _is_path(parameter: click.Parameter, value: Any) -> bool:
    """A protocol is a name or a YAML file."""
    if parameter.name == "protocol":
        return isinstance(value, str) and value.endswith((".yaml", ".yml"))
    return isinstance(parameter.type, click.Path) and isinstance(value, str)


def save(context: click.Context, file: Path) -> None:
    """Write what was given, on the command line or by another such file. Paths are written in full."""
    given = dict(_given(context))
    text = yaml.safe_dump(given, sort_keys=False, allow_unicode=True)
    publish_text(file, f"# lary-orch run --config {file.name}\n{text}")


def _given(context: click.Context) -> Iterator[tuple[str, Any]]:
    for parameter in context.command.params:
        name = str(parameter.name)
        if _name(parameter) in NOT_ASKED or context.get_parameter_source(name) not in GIVEN:
            continue
        value = context.params[name]
        several = list(value) if isinstance(value, list | tuple) else [value]
        found = [_from(Path(), str(one)) if _is_path(parameter, str(one)) else one for one in several]
        yield _name(parameter), found if isinstance(value, list | tuple) else found[0]
