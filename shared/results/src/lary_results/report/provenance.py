"""What each score can be traced to: one foldable entry per result."""

from collections.abc import Iterable, Iterator, Sequence

from lary_schema.results import ProbeResult, StoreTrace

from lary_results.report.datasets import plain
from lary_results.report.evidence import Evidence
from lary_results.report.markup import Child, Html, details, el, table
from lary_results.report.standing import Anchors
from lary_results.scores import Score, number

DIGITS = 12
SHOWN = {"version", "kind", "metric", "model", "variant", "dataset", "control", "splits", "stores", "classes"}
"""Fields of a result that the entry's title and tables show, or the dataset's section."""


def section(evidence: Evidence, anchors: Anchors) -> Html:
    scores: dict[str, list[Score]] = {}
    for score in sorted((s for board in evidence.boards for s in board.kept), key=_order):
        scores.setdefault(score.file, []).append(score)
    entries = [_entry(evidence.results[file], found, anchors[file]) for file, found in scores.items()]
    hint = "Each entry names what its scores were made from; equal hashes mean equal bytes."
    return el(
        "section",
        el("h2", "Provenance"),
        el("p", hint, class_="muted"),
        entries,
        _on_paper([(evidence.results[file], found) for file, found in scores.items()]),
        id="provenance",
    )


def _on_paper(traced: Sequence[tuple[ProbeResult, list[Score]]]) -> Html:
    """One line a result, with the first digits of the hashes: what is printed in place of the entries."""
    header = ("result", "score", "run", "latents", "weights", "CSV", "image", "code", "probe's code")
    text = (
        f"The first {DIGITS} digits of each hash, train's first. The page itself has all, with recipes and libraries."
    )
    lines = table(header, [_line(result, scores) for result, scores in traced])
    return el("div", el("p", text, class_="muted"), lines, class_="paper")


def _line(result: ProbeResult, scores: list[Score]) -> list[Child]:
    stores = result.stores
    title = [result.model, " ", el("small", _title(result, scores[0].probe))]
    weights = (f"{name} {_short(value)}" for store in stores for name, value in store.weights.items())
    return [
        title,
        _values(scores),
        result.run,
        _distinct(_short(store.fingerprint) for store in stores),
        _distinct(weights) if any(store.weights for store in stores) else "none needed",
        _distinct(_short(store.metadata_sha256) for store in stores),
        _distinct(_short(store.image_digest) if store.image_digest else "no container" for store in stores),
        _distinct(_short(store.code_sha256) for store in stores),
        _short(result.probe_code_sha256),
    ]


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:DIGITS]


def _distinct(values: Iterable[str]) -> Child:
    """One a line, each once."""
    return [[value, el("br")] for value in dict.fromkeys(values)]


def _order(score: Score) -> tuple[str, ...]:
    return score.protocol, score.dataset, score.model, score.variant, score.control, score.split


def _entry(result: ProbeResult, scores: list[Score], anchor: str) -> Html:
    title = f"{result.model} {_title(result, scores[0].probe)}: {_values(scores)}"
    facts = el("dl", [pair for name, value in _facts(result, scores[0].file) for pair in _pair(name, value)])
    stores = table(STORE_HEAD, [_store(result, store) for store in result.stores])
    # The anchor is inside, so that following a link opens the entry.
    return details(title, el("div", facts, stores, id=anchor), class_="trace inner")


def _title(result: ProbeResult, probe: str) -> str:
    control = "" if result.control == "none" else f", {result.control} control"
    read = ", ".join(filter(None, (result.variant, probe)))
    return f"({read}) on {result.dataset}{control}, {result.protocol}"


def _values(scores: list[Score]) -> str:
    return ", ".join(f"{s.split} {number(s.metric, s.value)}" for s in scores)


def _facts(result: ProbeResult, file: str) -> Iterator[tuple[str, str]]:
    """Every field of the result that is not shown elsewhere, newer fields included."""
    yield "result", file
    for name, value in result.model_dump(mode="json", exclude=SHOWN).items():
        if value not in (None, "", {}, []):
            yield name.replace("_", " "), plain(value)


def _pair(name: str, value: str) -> tuple[Html, Html]:
    return el("dt", name), el("dd", value)


STORE_HEAD = ("split", "rows", "image", "code", "weights", "CSV", "latents")


def _store(result: ProbeResult, store: StoreTrace) -> list[Child]:
    image = [store.image, el("br"), _hash(store.image_digest or "no digest: outside a container")]
    weights = [[el("b", name), " ", _hash(value), el("br")] for name, value in store.weights.items()]
    return [
        store.split,
        _rows(result, store),
        image,
        _hash(store.code_sha256),
        weights or "none needed",
        _hash(store.metadata_sha256),
        [store.path, el("br"), _hash(store.fingerprint), _mixed(store)],
    ]


def _mixed(store: StoreTrace) -> Html | None:
    if not store.mixed:
        return None
    return el("p", "made in more than one environment: ", "; ".join(store.mixed), class_="tag")


def _hash(value: str) -> Html:
    return el("code", value)


def _rows(result: ProbeResult, store: StoreTrace) -> str:
    """The first store is train's."""
    found = result.splits.get(store.split)
    count = result.train_rows if store is result.stores[0] or found is None else found.rows
    return f"{count.used} used, {count.failed} failed, {count.clamped} clamped"
