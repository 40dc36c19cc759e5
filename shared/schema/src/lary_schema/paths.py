"""Paths as people write them, made plain once where they enter."""

from pathlib import Path

from lary_schema.base import ContractError


def normalised(path: Path) -> Path:
    """An absolute path without `~` and `..`: jobs name what lies below it, and a part of it, in their own words.

    `..` goes to the parent of what a link points to, as the system has it. Other links stay as they are, so that a
    volume keeps the name that its owner gave it. Raises ContractError where `~` or `..` lead nowhere, and where
    something that is no folder stands at the path.
    """
    try:
        absolute = path.expanduser().absolute()
        plain = absolute.resolve() if ".." in absolute.parts else absolute
        other = plain.exists() and not plain.is_dir()
    except (RuntimeError, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ContractError(f"{path}: cannot be used as a folder: {why}") from None
    if other:
        raise ContractError(f"{path}: cannot be used as a folder: something else stands there")
    return plain
