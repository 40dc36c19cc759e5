"""YAML: what stands twice, is nested or expands without end, and what is no text at all."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from lary_schema.base import ContractError
from lary_schema.yaml_files import MAX_BYTES, MAX_DEPTH, parse_yaml, read_yaml

SCALAR = st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab:- é", max_size=4)
VALUE = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
)


@settings(max_examples=150, deadline=None)
@given(value=VALUE)
def test_what_is_plain_is_read_as_by_the_safe_loader(value: Any) -> None:
    text = yaml.safe_dump(value, allow_unicode=True)
    assert parse_yaml(text, "f") == value == yaml.safe_load(text)


@settings(max_examples=100, deadline=None)
@given(keys=st.lists(st.text("abc", min_size=1, max_size=2), min_size=1, max_size=5, unique=True), again=st.integers(0))
def test_a_key_that_stands_twice_is_named_with_both_lines(keys: list[str], again: int) -> None:
    first = again % len(keys)
    lines = [f'  "{key}": 1' for key in keys] + [f"  '{keys[first]}': 2"]
    with pytest.raises(ContractError, match=f"f: line {len(keys) + 2}: key .*first in line {first + 2}"):
        parse_yaml("top:\n" + "\n".join(lines), "f")


def test_merged_keys_may_be_given_again() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\n"
    assert parse_yaml(text, "f") == {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}}


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "stands for more than"),
        ("a: &a [*a]", "an alias stands within what it names"),
        ("a: &a {b: {c: *a}}", "an alias stands within what it names"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested too deeply"),
        ("[" * 20_000, "nested too deeply"),
        ("{a: " * 20_000, "nested too deeply"),
        ("".join("  " * n + "- \n" for n in range(3000)), "nested too deeply"),
        ("a: " + "9" * 5000, "a value cannot be read"),
        ("a: 2024-13-45", "a value cannot be read"),
        ("? [a, b]\n: 1", "a key must be one word"),
        ("a: !!python/object/apply:os.system [x]", "not YAML"),
        ("a: [", "not YAML"),
        ("a: b: c", "not YAML"),
        ("a: \0", "not YAML"),
        ("a: 1\n---\nb: 2", "not YAML"),
    ],
)
def test_a_text_without_end_or_sense_is_one_line(text: str, message: str) -> None:
    with pytest.raises(ContractError, match=message) as caught:
        parse_yaml(text, "card.yaml")
    assert str(caught.value).startswith("card.yaml: ")


def test_what_is_no_file_or_too_large_is_refused_unread(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(b"#" * (MAX_BYTES + 1))
    (tmp_path / "latin").write_bytes(b"a: \xe9")
    for name, message in {
        "fifo": "no regular file", "": "no regular file", "large": "this is no card", "latin": "not YAML",
        "absent": "cannot be read",
    }.items():  # fmt: skip
        with pytest.raises(ContractError, match=message):
            read_yaml(tmp_path / name)
    (tmp_path / "mark").write_text("\ufeffa: 1\r\n", encoding="utf-8")
    assert read_yaml(tmp_path / "mark") == {"a": 1}
    assert parse_yaml("", "f") is None
