"""`extract`: every mode and variant, a kill in the middle, a file that is no picture."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lary_schema.base import ExitCode, WeightsError, file_sha256
from lary_schema.events import Event, Finished, ShardDone, Started
from lary_schema.jobs import ExtractJob
from lary_schema.store.layout import Store

from lary_conformance.case import Case, Skipped, expect
from lary_conformance.fixture import BAD_ROW, ROWS
from lary_conformance.subject import Feed, Ran, Subject


def cases(subject: Subject) -> Iterator[Case]:
    if not subject.card.models:
        return
    seen: set[str] = set()
    for feed in subject.feeds():
        yield Case("extract", str(feed), partial(_whole, subject, feed), "compare the card's shapes with `encode`")
        if feed.mode not in seen:
            seen.add(feed.mode)
            yield Case("corrupt input", str(feed), partial(_corrupt, subject, feed), "let a bad row cost that row")
    for key in subject.models:
        feed = next(feed for feed in subject.feeds() if feed.key == key)
        remedy = "let a row's latent depend on nothing but the row, the weights and the seed"
        yield Case("resume", str(feed), partial(_resumed, subject, feed), remedy)


def _job(subject: Subject, feed: Feed, *, corrupt: bool = False, max_failed: float = 0) -> ExtractJob:
    try:
        weights = subject.weights_of(feed)
    except WeightsError as error:
        raise Skipped(f"needs weights: {error}") from None
    return subject.job(feed, weights, corrupt=corrupt, max_failed=max_failed)


def _whole(subject: Subject, feed: Feed) -> str:
    return check_extraction(subject, feed, _job(subject, feed))


def check_extraction(subject: Subject, feed: Feed, job: ExtractJob, weights: Path | None = None) -> str:
    """Run a job; `weights`: a mount other than the feed's. Raises ContractError where the store is not whole."""
    volume = subject.volume()
    ran = subject.extract(feed, job, volume, weights=weights)
    _check_done(ran, job, volume)
    expect(not ran.strays, f"stdout holds lines that are no events: {ran.strays[:3]}")
    kinds = [type(event) for event in ran.events]
    expect(kinds.count(Started) == 1, f"{kinds.count(Started)} `started` events, one expected")
    expect(bool(kinds) and kinds[-1] is Finished, "the last event is not `finished`")
    failed = [failure for record in _index(job, volume).records() for failure in record.failures]
    expect(not failed, f"good rows failed: {failed[:3]}")
    time, tokens, width = job.store.tokens
    return f"{ROWS} rows of ({time}, {tokens}, {width})"


def _corrupt(subject: Subject, feed: Feed) -> str:
    job, volume = _job(subject, feed, corrupt=True, max_failed=1), subject.volume()
    ran = subject.extract(feed, job, volume)
    _check_done(ran, job, volume)
    failures = [failure for record in _index(job, volume).records() for failure in record.failures]
    rows = [failure.row for failure in failures]
    expect(rows == [BAD_ROW], f"row {BAD_ROW} is no picture; failed rows: {rows}")
    expect(bool(failures[0].detail), f"row {BAD_ROW} failed without a reason")
    return f"row {BAD_ROW}: {failures[0].reason}"


def _resumed(subject: Subject, feed: Feed) -> str:
    """SIGKILL after the first shard, the same job again, against a store that nobody disturbed."""
    job, volume, undisturbed = _job(subject, feed), subject.volume(), subject.volume()
    killed = subject.extract(feed, job, volume, stop_at=_is_shard)
    expect(any(map(_is_shard, killed.events)), f"no `shard_done` event before the end: {killed.error}")
    kept = len(_index(job, volume).done())
    _check_done(subject.extract(feed, job, volume), job, volume)
    _check_done(subject.extract(feed, job, undisturbed), job, undisturbed)
    ours, theirs = _bytes(volume), _bytes(undisturbed)
    differing = sorted(name for name in ours | theirs if ours.get(name) != theirs.get(name))
    expect(not differing, f"the resumed store differs from an undisturbed one in {differing[:3]}")
    return f"killed after {kept} of {job.store.shards} shards; all bytes equal"


def _is_shard(event: Event) -> bool:
    return isinstance(event, ShardDone)


def _check_done(ran: Ran, job: ExtractJob, volume: Path) -> None:
    expect(ran.code == ExitCode.DONE, f"exit {ran.code}: {ran.error}")
    index = _index(job, volume)
    expect(index.exists, f"exit 0, and no store at {job.store.path}")
    missing = index.missing()
    expect(not missing, f"exit 0, and shards {missing} are not marked done")
    damage = [problem for record in index.records() for problem in index.damage(record)]
    expect(not damage, f"exit 0, and files are not whole: {damage[:3]}")
    expect(index.provenance.values == job.values, "the store's provenance is not that of the job")


def _index(job: ExtractJob, volume: Path) -> Store:
    return Store(volume / job.store.path)


def _bytes(volume: Path) -> dict[str, str]:
    return {str(p.relative_to(volume)): file_sha256(p) for p in sorted(volume.rglob("*")) if p.is_file()}
