"""Sentences below a board's table: what its numbers are, and what its marks say."""

from collections.abc import Iterable, Iterator

from lary_schema import commands

from lary_results.averages import TITLES, misprint
from lary_results.baselines import BASELINE_MODELS
from lary_results.board import Board
from lary_results.comparing import REASONS
from lary_results.published import published
from lary_results.scores import Score, column_name, is_nuisance, printed_number

FAILED, OTHER_ROWS, WEAK, UNLEARNED, REFUSED, MIXED, IMPORTED = "*", "†", "‡", "§", "¶", "#", "°"
NAMED = 8
"""How many a sentence names."""


def marks(board: Board, score: Score) -> str:
    """A mark for each note on one score of the table."""
    found = {
        FAILED: score.failed or score.train_failed,
        OTHER_ROWS: board.other_rows(score),
        WEAK: not score.beats_floor,
        UNLEARNED: score.learned is False,
        REFUSED: board.is_refused(score),
        MIXED: score.mixed,
        IMPORTED: score.imported is not None,
    }
    return "".join(mark for mark, applies in found.items() if applies)


def notes(board: Board) -> list[str]:
    return [
        *_intervals(board),
        *_imported(board),
        *_rows(board),
        *_doubts(board),
        *_targets(board),
        *_older(board),
        *_published(board),
    ]


def _intervals(board: Board) -> Iterator[str]:
    """What was drawn; seeds; what intervals may not be trusted in."""
    drawn: dict[str, list[str]] = {}
    for score in board.kept:
        drawn.setdefault(_drawn(score), []).append(column_name(score.column))
    if len(drawn) == 1:
        yield f"[ , ] is the 95 % interval: {next(iter(drawn))}."
    else:
        each = (f"{text} ({', '.join(dict.fromkeys(columns))})" for text, columns in drawn.items())
        yield f"[ , ] is the 95 % interval: {'; '.join(each)}."
    if any(score.std is not None for score in board.kept):
        nested = any(score.nested for score in board.kept)
        yield "sd is the spread over seeds" + ("; the interval of such a cell holds it too." if nested else ".")
    for column, note in dict.fromkeys((s.column, s.note) for s in board.kept if s.note is not None):
        yield f"{column_name(column)}: {note}"


def _drawn(score: Score) -> str:
    if score.unit == "groups":
        return f"groups drawn ({score.group})" if score.group else "groups drawn"
    return "rows taken as independent"


def _imported(board: Board) -> Iterator[str]:
    """Whose scores are not of this machine."""
    for name in dict.fromkeys(score.imported for score in board.kept if score.imported is not None):
        models = dict.fromkeys(score.model for score in board.kept if score.imported == name)
        yield f"{IMPORTED} imported from {name}, made elsewhere: {', '.join(models)}"


def _rows(board: Board) -> Iterator[str]:
    """Of which rows scores are."""
    for score in board.ours:
        if score.failed or score.train_failed:
            lost = f"{score.failed} of {score.rows} rows have no latent ({score.train_failed} in train)"
            yield f"{FAILED} {score.named}: {lost}; they are excluded from scores"
    for score in board.refused:
        share = f"{100 * score.failed_share:.1f} % of its rows have no latent"
        yield f"{REFUSED} {score.named}: not compared, {share}, and --max-failed is {100 * board.max_failed:g} %"
    for column, found in board.common.items():
        if found.scores:
            yield (
                f"{column_name(column)}: {found.rows} of {found.of} rows have a latent of every model compared; "
                "the column common rows is of them, and the one before it of each model's own"
            )
        for (model, variant), why in found.without.items():
            yield f"{model} ({variant}) on {column_name(column)}: not on common rows: {why}"
    for score in board.kept:
        if board.other_rows(score):
            what = "of other labels or actions under the same CSV" if board.other_targets(score) else "from another CSV"
            yield f"{OTHER_ROWS} {score.named}: {what} than the newest result of this column; do not compare"


def _doubts(board: Board) -> Iterator[str]:
    """Scores that may say nothing of the latents."""
    for score in board.ours:
        if score.mixed:
            yield f"{MIXED} {score.named}: made in more than one environment (--mixed): {'; '.join(score.mixed)}"
    if any(not score.beats_floor for score in board.ours):
        yield f"{WEAK} not better than the most frequent class or the mean action beyond its interval."
    if any(score.learned is False for score in board.ours):
        yield (
            f"{UNLEARNED} the probe never learned: its training score stayed at chance in every epoch, so this says "
            "nothing of the latents."
        )
    if board.overfitting:
        yield (
            "overfitting is the probe's error after training on shuffled targets. It is above the mean action's by "
            "construction: the further, the more the probe fits noise. It is no baseline."
        )


def _targets(board: Board) -> Iterator[str]:
    """What regressions predict, and what is missing to judge them."""
    for column in board.without_baseline_models:
        names = [word for name in sorted(BASELINE_MODELS) for word in ("-m", name)]
        adding = commands.command("run", *names, "-d", column[0], "--protocol", board.protocol)
        yield (f"{column_name(column)}: without its baseline, what one frame shows. To add it: {adding}")
    if any(is_nuisance(column) for column in board.columns):
        yield (
            "(nuisance) is how well what should not matter is read from a latent: a low error is no merit, and it is "
            "in no other column."
        )
    actions = [column for column in board.columns if column[2] == "mse" and not is_nuisance(column)]
    if any("relative" in column[3] for column in actions) and any("relative" not in column[3] for column in actions):
        yield (
            "(relative) is the change over a chunk. Without it the target is the position itself, which one frame "
            "may show: a good score there need not mean that motion is seen."
        )


def _older(board: Board) -> Iterator[str]:
    if board.older:
        named = _named(f"{score.named}{_control(score)} of run {score.run}" for score in board.older)
        yield f"{len(board.older)} older scores of the same cells are not shown; --run shows one run's: {named}."


def _control(score: Score) -> str:
    return "" if score.control == "none" else f", {score.control} control,"


def _named(texts: Iterable[str]) -> str:
    every = list(dict.fromkeys(texts))
    more = f"; and {len(every) - NAMED} more" if len(every) > NAMED else ""
    return "; ".join(every[:NAMED]) + more


def _published(board: Board) -> Iterator[str]:
    if any(score.published is not None for score in board.ours):
        yield "published: arXiv 2604.11689 v1, Tables 1, 2 and 6."
    if board.letters:
        yield "A letter in brackets says why the published score is not shown with ours:"
    yield from (f"  {letter}  {REASONS[name]}" for name, letter in board.letters.items())
    for (model, _), found in board.averages.items():
        for name in dict.fromkeys(average.name for average in found.values()):
            mean, metric = misprint(name, model), next(a.metric for a in found.values() if a.name == name)
            if mean is not None and (printed := published(metric, model, name)) is not None:
                stated = f"the paper prints {printed_number(metric, printed)} as its {TITLES[name]}"
                yield f"{model}: {stated}, its own row averages {printed_number(metric, mean)}"
