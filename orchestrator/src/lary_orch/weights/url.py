"""Fetching a single file of weights from a plain address, whole or not at all."""

import http.client
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lary_schema.atomic import PARTIAL_SUFFIX
from lary_schema.base import ContractError, WeightsError, fingerprint
from lary_schema.cards import WeightSpec
from lary_terminal.tables import size_text

from lary_orch.weights.fetch import Notify, check_space, publish, require_https

TIMEOUT_S = 60.0
"""Without a byte."""
CHUNK = 1 << 20


def fetch_url(spec: WeightSpec, path: Path, notify: Notify) -> None:
    """Put the file of `spec.url` at `path`.

    What came of an interrupted download lies in `NAME.VERSION.partial` next to `path`. The next one goes on
    there if the server says that its file is still that version, by a strong ETag or a date; a server that
    says neither sends all of it again. Compared with the card's sha256 where that is known. Raises
    WeightsError (exit 4), which says what to do, where it cannot be had.
    """
    assert spec.url is not None
    require_https(spec.url)
    with _explained(spec.url, path):
        facts = _facts(spec.url)
        size = int(facts.get("Content-Length", 0))
        draft = path.with_name(f"{path.name}.{_version(facts)}{PARTIAL_SUFFIX}")
        draft.mkdir(parents=True, exist_ok=True)
        check_space(path, spec.url, size, draft)
        notify(f"fetching {spec.url}: {size_text(size) if size else 'of unknown size'}")
        file = draft / path.name
        _download(spec.url, file, facts)
        if size and file.stat().st_size != size:
            raise WeightsError(f"{spec.url}: {file.stat().st_size} bytes came, {size} were announced; {_AGAIN}")
    notify(publish(spec, spec.url, file, draft, path))


_AGAIN = "what came is kept, the same command goes on"
_VALIDATORS = ("ETag", "Last-Modified")


def _facts(url: str) -> Mapping[str, str]:
    with _open(url, method="HEAD") as response:
        facts: Mapping[str, str] = response.headers
        return facts


def _version(facts: Mapping[str, str]) -> str:
    """Changes when the server's file does, as far as it reports."""
    return fingerprint({name: facts.get(name) for name in (*_VALIDATORS, "Content-Length")})[:12]


def _condition(facts: Mapping[str, str]) -> str | None:
    """What `If-Range` may carry: a strong ETag, else a date; None where the server gives neither."""
    tag = facts.get("ETag")
    return tag if tag and not tag.startswith("W/") else facts.get("Last-Modified")


def _download(url: str, file: Path, facts: Mapping[str, str]) -> None:
    have = file.stat().st_size if file.exists() else 0
    condition, size = _condition(facts), int(facts.get("Content-Length", 0))
    if have and condition and have == size:
        return
    headers = {"Range": f"bytes={have}-", "If-Range": condition} if have and condition else {}
    with _open(url, headers=headers) as response:
        _require_same(url, facts, response.headers)
        goes_on = response.status == http.client.PARTIAL_CONTENT
        if goes_on and not _begins_at(response.headers.get("Content-Range", ""), have, size):
            raise WeightsError(f"{url}: the server responds with another part than was requested; {_AGAIN}")
        # A server that knows no ranges, or has another file by now, sends all of it.
        with file.open("ab" if goes_on else "wb") as target:
            shutil.copyfileobj(response, target, CHUNK)


def _require_same(url: str, facts: Mapping[str, str], response: Mapping[str, str]) -> None:
    """Refuse a file that is not the one that `facts` describe: its bytes would lie under the other's name."""
    changed = [name for name in _VALIDATORS if None not in (facts.get(name), response.get(name))]
    changed = [name for name in changed if facts.get(name) != response.get(name)]
    if changed:
        raise WeightsError(f"{url}: the server's file changed meanwhile (another {changed[0]}); run the command again")


def _begins_at(content_range: str, start: int, size: int) -> bool:
    """Whether `bytes START-END/SIZE` is what was requested."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", content_range)
    return found is not None and int(found[1]) == start and (found[2] == "*" or not size or int(found[2]) == size)


class _HttpsAlone(urllib.request.HTTPRedirectHandler):
    """Follows no redirection to an address without encryption."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        try:
            require_https(newurl)
        except ContractError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> Any:
    require_https(url)
    # Compressed on the way, sizes and ranges would be those of something else.
    request = urllib.request.Request(url, method=method, headers={"Accept-Encoding": "identity"} | dict(headers or {}))
    return urllib.request.build_opener(_HttpsAlone).open(request, timeout=TIMEOUT_S)


@contextmanager
def _explained(url: str, path: Path) -> Iterator[None]:
    """Turn what the network or the disk reports into what to do."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        raise WeightsError(f"{url}: {error.code} {error.reason}; fetch it by hand to {path}") from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = str(getattr(error, "reason", None) or error) or type(error).__name__
        raise WeightsError(
            f"{url}: {reason}; {_AGAIN}. Without a network, fetch on another machine and copy it to {path}"
        ) from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be written: {error.strerror}; choose another --weights-dir") from None
