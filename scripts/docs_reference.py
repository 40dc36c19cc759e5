"""Generated pages of the docs site: commands from click, schemas, Python from docstrings, the executed notebook."""

import contextlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

PYTHON = {
    "Documents (`lary_schema`)": ("cards", "jobs", "events", "results", "training", "datasets"),
    "Stores (`lary_schema.store`)": ("store.reader", "store.writer", "store.layout"),
    "CSV files, groups, intervals": ("metadata", "groups", "labels", "intervals"),
}
FURTHER = {
    "A model (`lary_worker`)": ("lary_worker.model", "lary_worker.checkpoints"),
    "A trainee (`lary_trainer`)": ("lary_trainer.trainee",),
}
WIDTH = 100
FENCE = "```"


def write(root: Path, target: Path) -> None:
    """All generated pages of the repository at `root`, below `target`."""
    folder = target / "reference"
    folder.mkdir(parents=True)
    (folder / "commands.md").write_text(commands_page(), encoding="utf-8")
    (folder / "python.md").write_text(python_page(root), encoding="utf-8")
    (folder / "schemas.md").write_text(schemas_page(root, folder), encoding="utf-8")
    notebook = root / "docs/notebook.ipynb"
    (target / "docs/notebook.md").write_text(notebook_page(notebook, target / "docs/notebook"), encoding="utf-8")


# --- commands ------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[click.Context, click.Command]]:
    """Every command with its context, groups before what is in them.

    `data` and `latents` hand over to the data tools, whose own commands stand here.
    """
    from lary_data.__main__ import cli as tools
    from lary_orch.cli import cli

    context = click.Context(tools)
    verbs = {f"latents {verb}": tools.get_command(context, f"latents-{verb}") for verb in ("import", "export")}
    yield from _below(cli, "lary-orch", None, {"data": tools} | verbs)


def _below(
    command: click.Command, name: str, parent: click.Context | None, handed: dict[str, click.Command | None]
) -> Iterator[tuple[click.Context, click.Command]]:
    """`handed`: path below lary-orch -> the command that it hands over to."""
    path = f"{parent.command_path} {name}".removeprefix("lary-orch ") if parent else ""
    inside = handed.get(path) or command
    shown = command if isinstance(inside, click.Group) else inside
    context = click.Context(shown, parent=parent, info_name=name, max_content_width=WIDTH, terminal_width=WIDTH)
    yield context, shown
    if isinstance(inside, click.Group):
        below = click.Context(inside, parent=parent, info_name=name)
        for child in inside.list_commands(below):
            found = inside.get_command(below, child)
            internal = path == "data" and (child == "describe" or child.startswith("latents-"))
            if found is not None and not found.hidden and not internal:
                yield from _below(found, child, below, handed)


def commands_page() -> str:
    parts = ["# Commands\n\nWhat `--help` of each prints, those of the packages that add commands among them.\n"]
    for context, command in commands():
        level = 2 + (context.parent is not None and context.parent.parent is not None)
        parts.append(f"{'#' * level} {context.command_path}\n\n{FENCE}text\n{command.get_help(context)}\n{FENCE}\n")
    return "\n".join(parts)


# --- Python and schemas --------------------------------------------------------------------------


def python_page(root: Path) -> str:
    """One block per module for mkdocstrings, which reads the sources and imports nothing."""
    parts = ["# Python\n\nFrom docstrings. What is not here is internal and may change without notice.\n"]
    sections = {title: tuple(f"lary_schema.{name}" for name in names) for title, names in PYTHON.items()} | FURTHER
    if (root / "shared/results/src/lary_results/frame.py").is_file():
        sections["Results (`lary_results`)"] = ("lary_results.frame",)
    for title, modules in sections.items():
        parts.append(f"# {title}\n")
        parts += [f"::: {module}\n" for module in modules]
    return "\n".join(parts)


def schemas_page(root: Path, folder: Path) -> str:
    parts = [
        "# Schemas\n\nJSON Schemas of the documents that cross a boundary, and of the cards that people write. An"
        " editor with a YAML language server checks a card whose first line names its schema:\n",
        f"{FENCE}yaml\n# yaml-language-server: $schema=PATH/dataset-card.schema.json\n{FENCE}\n",
        "What each field means: [the classes](python.md).\n",
    ]
    for path in sorted((root / "shared/schema/schemas").glob("*.schema.json")):
        (folder / path.name).write_bytes(path.read_bytes())
        document = json.loads(path.read_text(encoding="utf-8"))
        parts.append(f"## {path.name.removesuffix('.schema.json')}\n\n[{path.name}]({path.name})\n")
        parts.append(_paragraph(document))
        for name, inside in _objects(document):
            parts.append(f"**{name}**\n\n{_paragraph(inside)}\n{_fields(inside)}")
    return "\n".join(parts)


def _objects(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    if "properties" in document:
        yield document["title"], document
    yield from ((name, inside) for name, inside in document.get("$defs", {}).items() if "properties" in inside)


def _paragraph(document: dict[str, Any]) -> str:
    return f"{document['description']}\n" if "description" in document else ""


def _fields(document: dict[str, Any]) -> str:
    needed = document.get("required", [])
    lines = ["| field | type | default |", "| --- | --- | --- |"]
    for name, field in document["properties"].items():
        default = f"`{json.dumps(field['default'])}`" if "default" in field else "needed" if name in needed else ""
        lines.append(f"| `{name}` | {_type(field)} | {_cell(default)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    for joined in ("anyOf", "oneOf"):
        if joined in field:
            return " or ".join(_type(one) for one in field[joined])
    if "enum" in field or "const" in field:
        return ", ".join(f"`{json.dumps(value)}`" for value in field.get("enum", [field.get("const")]))
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}))}"
    return str(field.get("type", "anything"))


# --- notebook ------------------------------------------------------------------------------------


def notebook_page(notebook: Path, pictures: Path) -> str:
    """The notebook as a page, executed now: its text, its code, what the code printed and drew."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    parts, space = [], dict[str, Any]()
    with _inside(notebook.parent):
        for number, cell in enumerate(cells):
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                parts.append(source)
                continue
            parts += [f"{FENCE}python\n{source}\n{FENCE}", *execute(source, space, pictures / f"{number}.png")]
    return "\n\n".join(parts) + "\n"


def execute(source: str, space: dict[str, Any], picture: Path) -> list[str]:
    """Run a cell in `space`; the Markdown of what it printed and of the figure that it drew."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, picture.stem, "exec"), space)
    parts = [f"{FENCE}text\n{printed.getvalue().rstrip()}\n{FENCE}"] if printed.getvalue() else []
    if pyplot.get_fignums():
        picture.parent.mkdir(parents=True, exist_ok=True)
        pyplot.savefig(picture, dpi=90)
        pyplot.close("all")
        parts.append(f"![what the cell drew]({picture.parent.name}/{picture.name})")
    return parts


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
