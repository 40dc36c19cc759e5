"""YAML, read strictly: what stands twice, is nested without end or expands without end is refused."""

from pathlib import Path
from typing import Any

import yaml

from lary_schema.base import ContractError

MAX_BYTES = 1 << 20
"""Of a file. The longest card of the bench has 10 kB."""
MAX_DEPTH = 40
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where the wheel has it: an eighth of the time, and every command reads all cards."""
MAX_VALUES = 100_000
"""After aliases are followed: nine lines of aliases can stand for a billion values."""


def read_yaml(path: Path) -> Any:
    """A YAML file's content (safe loader). Raises ContractError naming the file and the line."""
    try:
        if path.exists() and not path.is_file():
            raise ContractError(f"{path}: is no regular file; a YAML file is expected")
        if path.exists() and path.stat().st_size > MAX_BYTES:
            raise ContractError(f"{path}: has {path.stat().st_size} bytes, more than {MAX_BYTES}; this is no card")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ContractError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ContractError(f"{path}: not YAML: {error}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """The content of a YAML text; `where` (a file) opens the error message. Raises ContractError."""
    try:
        loader = _LOADER(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check(node, where, 1, {}, ())
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError) as error:
        # libyaml stops at a thousand levels by itself.
        if isinstance(error, RecursionError) or "maximum nesting" in str(error):
            raise ContractError(f"{where}: nested too deeply; at most {MAX_DEPTH} levels are read") from None
        raise ContractError(f"{where}: not YAML: {error}") from None
    except (ValueError, TypeError, OverflowError) as error:
        # A number of thousands of digits, a month 13.
        raise ContractError(f"{where}: not YAML: a value cannot be read: {error}") from None


def _check(node: yaml.Node, where: str, depth: int, sizes: dict[int, int], above: tuple[int, ...]) -> int:
    """How many values a node stands for. Raises ContractError for what is refused."""
    if id(node) in above:
        raise ContractError(f"{where}: {_line(node)}: an alias stands within what it names")
    if depth > MAX_DEPTH:
        raise ContractError(f"{where}: {_line(node)}: nested too deeply; at most {MAX_DEPTH} levels are read")
    if id(node) in sizes:
        return sizes[id(node)]
    if isinstance(node, yaml.MappingNode):
        _refuse_repeated(node, where)
    size = 1 + sum(_check(child, where, depth + 1, sizes, (*above, id(node))) for child in _children(node))
    if size > MAX_VALUES:
        raise ContractError(f"{where}: {_line(node)}: stands for more than {MAX_VALUES} values")
    sizes[id(node)] = size
    return size


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _refuse_repeated(node: yaml.MappingNode, where: str) -> None:
    seen: dict[tuple[str, str], yaml.Node] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise ContractError(f"{where}: {_line(key)}: a key must be one word")
        name = (key.tag, key.value)
        if name in seen:
            raise ContractError(
                f"{where}: {_line(key)}: key {key.value!r} stands twice (first in {_line(seen[name])}); keep one"
            )
        seen[name] = key


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"
