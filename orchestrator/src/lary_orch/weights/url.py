"""Fetching a single file of weights from a plain address, whole or not at all."""

import http.client
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lary_results.tables import size_text
from lary_schema.atomic import PARTIAL_SUFFIX
from lary_schema.base import WeightsError, fingerprint
from lary_schema.cards import WeightSpec

from lary_orch.weights.fetch import Say, check_space, publish

TIMEOUT_S = 60.0
"""Without a byte."""
CHUNK = 1 << 20


def fetch_url(spec: WeightSpec, path: Path, say: Say) -> None:
    """Put the file of `spec.url` at `path`.

    What came of an interrupted download lies in `NAME.VERSION.partial` beside `path`, and the next one goes
    on there while the server says that its file is the same. Compared with the card's sha256 where that is
    known. Raises WeightsError (exit 4) with the way out where it cannot be had.
    """
    assert spec.url is not None
    with _explained(spec.url, path):
        facts = _facts(spec.url)
        size = int(facts.get("Content-Length", 0))
        draft = path.with_name(f"{path.name}.{_version(facts)}{PARTIAL_SUFFIX}")
        draft.mkdir(parents=True, exist_ok=True)
        check_space(path, spec.url, size, draft)
        say(f"fetching {spec.url}: {size_text(size) if size else 'of unknown size'}")
        file = draft / path.name
        _download(spec.url, file, facts)
        if size and file.stat().st_size != size:
            raise WeightsError(f"{spec.url}: {file.stat().st_size} bytes came, {size} were announced; {_AGAIN}")
    publish(spec, spec.url, file, draft, path)
    say(f"{path}: fetched, {spec.license}")


_AGAIN = "what came is kept, the same command goes on"


def _facts(url: str) -> Mapping[str, str]:
    with _open(url, method="HEAD") as answer:
        facts: Mapping[str, str] = answer.headers
        return facts


def _version(facts: Mapping[str, str]) -> str:
    """Changes when the server's file does, as far as it tells."""
    return fingerprint({name: facts.get(name) for name in ("ETag", "Last-Modified", "Content-Length")})[:12]


def _download(url: str, file: Path, facts: Mapping[str, str]) -> None:
    have = file.stat().st_size if file.exists() else 0
    if have and have == int(facts.get("Content-Length", 0)):
        return
    headers = {"Range": f"bytes={have}-"} if have else {}
    with _open(url, headers=headers) as answer:
        # A server that knows no ranges sends all of it again.
        goes_on = answer.status == http.client.PARTIAL_CONTENT
        with file.open("ab" if goes_on else "wb") as target:
            shutil.copyfileobj(answer, target, CHUNK)


def _open(url: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> Any:
    # The schema of cards admits http and https alone.
    request = urllib.request.Request(url, method=method, headers=dict(headers or {}))
    return urllib.request.urlopen(request, timeout=TIMEOUT_S)


@contextmanager
def _explained(url: str, path: Path) -> Iterator[None]:
    """Turn what the network or the disk answers into what to do."""
    try:
        yield
    except urllib.error.HTTPError as error:
        raise WeightsError(f"{url}: {error.code} {error.reason}; fetch it by hand to {path}") from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = str(getattr(error, "reason", None) or error) or type(error).__name__
        raise WeightsError(
            f"{url}: {reason}; {_AGAIN}. Without a network, fetch on another machine and copy it to {path}"
        ) from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be written: {error.strerror}; choose another --weights-dir") from None
