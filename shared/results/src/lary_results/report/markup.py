"""HTML out of plain functions. All text is escaped, unless it is `Html` already; what is invisible is shown."""

import html
import re
from collections.abc import Iterable
from typing import TypeAlias

from lary_schema.printable import printable_lines

VOID = {"meta", "img", "br", "hr", "wbr", "rect", "line", "path", "circle"}
"""Elements without content: HTML's, and SVG's shapes, which may close themselves."""
SHAPES = {"rect", "line", "path", "circle"}


class Html(str):
    """Text that is HTML."""

    __slots__ = ()


Child: TypeAlias = "str | int | float | Iterable[Child] | None"
Value: TypeAlias = str | int | float | bool | None


def text(value: str) -> Html:
    """Escaped for content and for attributes in double quotes."""
    return Html(html.escape(printable_lines(value)))


def join(*children: Child) -> Html:
    """One after the other; None is nothing."""
    return Html("".join(_pieces(children)))


def _pieces(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if child is None:
            continue
        if isinstance(child, Html):
            yield child
        elif isinstance(child, str | int | float):
            yield text(str(child))
        else:
            yield from _pieces(child)


def el(name: str, /, *children: Child, **attributes: Value) -> Html:
    """An element. `class_` is written class, `data_v` data-v; None and False leave an attribute out."""
    pairs = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    written = "".join(_attribute(key, value) for key, value in pairs if value is not None and value is not False)
    if name in VOID:
        return Html(f"<{name}{written}{'/' if name in SHAPES else ''}>")
    return Html(f"<{name}{written}>{join(*children)}</{name}>")


def _attribute(key: str, value: Value) -> str:
    return f" {key}" if value is True else f' {key}="{text(str(value))}"'


def slug(*parts: str) -> str:
    """An id of letters, digits and dashes; different parts may give the same one."""
    return re.sub(r"[^A-Za-z0-9]+", "-", "-".join(parts)).strip("-")


def table(header: Iterable[Child], rows: Iterable[Iterable[Child]], *, numbers: int = 99, caption: str = "") -> Html:
    """A plain table in a box that scrolls; columns from `numbers` on are right-aligned."""

    def cells(name: str, row: Iterable[Child]) -> list[Html]:
        return [el(name, cell, class_="n" if nth >= numbers else None) for nth, cell in enumerate(row)]

    return scrolling(
        el(
            "table",
            el("caption", caption) if caption else None,
            el("thead", el("tr", cells("th", header))),
            el("tbody", [el("tr", cells("td", row)) for row in rows]),
        )
    )


def scrolling(*children: Child) -> Html:
    """A box that scrolls sideways by itself, also by keyboard."""
    return el("div", *children, class_="scroll", tabindex="0", role="region", aria_label="scrolls sideways")


def details(summary: Child, *children: Child, open_: bool = False, class_: str | None = None) -> Html:
    return el("details", el("summary", summary), *children, open=open_, class_=class_)
