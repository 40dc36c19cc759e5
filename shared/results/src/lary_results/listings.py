"""What `models` and `datasets` print, from their records (JSON values): a list, or all about one."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lary_schema import commands
from lary_schema.cards import DatasetCard, ModelCard
from lary_terminal.tables import Table, size_text

from lary_results.published import PRINTED_DIGITS, published_scores


def model_facts(card: ModelCard) -> dict[str, Any]:
    """What a card says of its model, as JSON values."""
    return {
        "key": card.key,
        "example": card.example,
        "title": card.title,
        "paradigm": card.paradigm,
        "tokens": {mode: list(spec.tokens) for mode, spec in card.modes.items()},
        "input": {mode: list(spec.input.shape) for mode, spec in card.modes.items()},
        "variants": list(card.variants),
        "preprocessing": card.preprocessing,
        "draws": card.draws,
        "batch_size": card.batch_size,
        "license": card.license,
        "source": card.source,
        "published": published_scores(card.key),
    }


def target_of(card: DatasetCard) -> str:
    """What probes of a set predict, in words."""
    if (actions := card.actions) is not None:
        return f"column {actions.column}: chunks of {actions.stride} x {actions.dim} ({', '.join(actions.names)})"
    assert card.labels is not None
    return f"column {card.labels.column}: " + (f"{card.labels.classes} classes" if card.labels.classes else "classes")


def models_table(records: Sequence[Mapping[str, Any]]) -> Table:
    """A line each. A narrow terminal leaves out what `models KEY` says."""
    return Table(
        "models",
        ("key", "image", "what it is", "tokens", "variants", "weights", "licence", "published"),
        [_model_cells(record) for record in records],
        notes=(
            f"All about one, with its licence and published scores: `{commands.command('models', 'KEY')}`.",
            f"How to get weights that are missing: `{commands.command('weights', 'ls')}`.",
        ),
        details=frozenset({1, 3, 4, 6, 7}),
    )


def _model_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        row["name"],
        row["image"],
        row["title"],
        _tokens(row),
        ", ".join(row["variants"]),
        _weights(row["weights"]),
        row["license"],
        _published(row) or "-",
    )


def _tokens(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{mode} {'x'.join(map(str, shape))}" for mode, shape in row["tokens"].items())


def _published(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value:.{PRINTED_DIGITS}f}" for name, value in row["published"].items())


def _weights(weights: Sequence[Mapping[str, Any]]) -> str:
    if not weights:
        return "needs none"
    shown = [weight for weight in weights if weight["found"] or weight["needed"]]
    return ", ".join(f"{w['name']} {'found' if w['found'] else 'missing'}" for w in shown) or "none needed yet"


def model_page(row: Mapping[str, Any]) -> Table:
    """All that the catalog says of one model."""
    return _page(f"model {row['name']}", [cells for cells in _about_model(row) if cells[1]])


def _about_model(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "what it is", row["title"]
    of = ""
    if row["example"] is not None:
        planning = commands.command("plan", "-m", row["name"], "-d", "DATASET", "--json")
        yield "keys", f"one of a family; its image knows what {row['name']} has, and `{planning}` shows it"
        of = f" (of {row['example']}, as an example)"
    yield "kind", row["paradigm"]
    yield "image", row["image"]
    yield "tokens", f"{_tokens(row)} (time steps x tokens per step x width){of}"
    yield "input", ", ".join(f"{mode} {'x'.join(map(str, shape))}" for mode, shape in row["input"].items()) + of
    yield "variants", f"{', '.join(row['variants'])} (the first is the default){of}"
    yield "preprocessing", row["preprocessing"] + of
    yield "seed", "its latents depend on --seed" if row["draws"] else "draws nothing: --seed does not matter"
    yield "batch size", str(row["batch_size"])
    for weight in row["weights"]:
        state = "found" if weight["found"] else "missing" if weight["needed"] else "not there, and not needed"
        yield f"weight {weight['name']}", f"{state}: {weight['path']} ({weight['license']})"
        yield "", "" if weight["found"] else weight["how"]
    yield "licence", row["license"]
    yield "source", row["source"]
    yield "published", _published(row) and f"{_published(row)} (top-1 in percent, MSE)"
    yield "card", row["card"]
    yield "use", commands.command("run", "-m", row["name"], "-d", "DATASET")


def datasets_table(records: Sequence[Mapping[str, Any]]) -> Table:
    """A line per split."""
    return Table(
        "datasets",
        ("key", "task", "input", "split", "rows", "on this disk", "CSV"),
        [line for record in records for line in _split_cells(record)],
        right=frozenset({4}),
        keys=frozenset({0, 3}),
        notes=(f"All about one, with its CSVs: `{commands.command('datasets', 'KEY')}`.",),
        details=frozenset({6}),
    )


def _split_cells(record: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for split in record["splits"]:
        role = f"{split['split']} (trains)" if split["trains"] else split["split"]
        problem = split["problem"] or "complete"
        state = "no CSV" if problem.startswith("no CSV:") else problem
        yield (record["key"], record["task"], record["input"], role, _rows(split), state, split["csv"])


def _rows(split: Mapping[str, Any]) -> str:
    return "-" if split["rows"] is None else str(split["rows"])


def dataset_page(row: Mapping[str, Any]) -> Table:
    """All that the catalog and this disk say of one dataset."""
    return _page(f"dataset {row['key']}", [cells for cells in _about_dataset(row) if cells[1]])


def _about_dataset(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "what it is", row["title"]
    yield "task", row["task"]
    yield "input", row["input"]
    yield "columns", ", ".join(f"{name} {column}" for name, column in row["columns"].items())
    yield "target", row["target"]
    yield "group", row["group"] or "none: rows are taken as independent"
    yield "media", row["media"]
    for split in row["splits"]:
        name = f"split {split['split']}" + (" (trains)" if split["trains"] else "")
        yield name, f"{_rows(split)} rows; {split['problem'] or 'complete'}"
        yield "", split["csv"]
    yield "licence", row["license"]
    yield "source", row["source"]
    yield "card", row["card"]
    yield "use", commands.command("run", "-m", "MODEL", "-d", row["key"])


def _page(title: str, lines: list[tuple[str, str]]) -> Table:
    return Table(title, ("", ""), lines, keys=frozenset({0}))


def weight_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A line of `weights ls`."""
    absent = "missing" if row["needed"] else "not needed"
    size = absent if row["bytes"] is None else size_text(row["bytes"])
    models = row["models"]
    shown = ", ".join(models[:3]) + (f" and {len(models) - 3} more" if len(models) > 3 else "")
    return (shown, row["name"], row["path"], size, row["license"], "-" if row["found"] else row["how"])
