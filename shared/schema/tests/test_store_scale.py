"""What a store of many shards costs, counted in looks at files and folders: never in seconds."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lary_schema.base import ContractError, read_json
from lary_schema.store.layout import Provenance, Store
from lary_schema.store.writer import LatentWriter

WriteShard = Callable[..., None]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """How often a folder was listed, a file opened or looked at, by call and path."""
    counted: Counter[tuple[str, str]] = Counter()

    def counting(name: str) -> None:
        real = getattr(os, name)

        def call(path: Any = ".", *arguments: Any, **fields: Any) -> Any:
            counted[name, str(path)] += 1
            return real(path, *arguments, **fields)

        monkeypatch.setattr(os, name, call)

    for name in ("scandir", "listdir", "open", "stat"):
        counting(name)
    return counted


def with_shards(provenance: Provenance, shards: int) -> Provenance:
    layout = provenance.layout.model_copy(update={"rows": shards, "shard_rows": 1})
    return provenance.model_copy(update={"layout": layout})


def listings(looks: Counter[tuple[str, str]], *folders: Path) -> int:
    return sum(count for (call, path), count in looks.items() if call.endswith("dir") and Path(path) in folders)


@pytest.mark.parametrize("claim", ["all at first", "one by one"])
def test_writing_lists_the_shared_folders_as_often_for_many_shards_as_for_few(
    claim: str, tmp_path: Path, provenance: Provenance, write_shard: WriteShard, looks: Counter[tuple[str, str]]
) -> None:
    found = {}
    for shards in (1, 4):
        writer = LatentWriter.open(tmp_path / f"{shards}.zarr", with_shards(provenance, shards))
        looks.clear()
        if claim == "all at first":
            assert all(writer.take(shard) for shard in range(shards))
        for shard in range(shards):
            if claim == "one by one":
                with writer.claim(shard):
                    write_shard(writer, shard)
            else:
                write_shard(writer, shard)
        writer.close()
        found[shards] = listings(looks, writer.store.markers, writer.store.statuses)
    assert 0 < found[4] == found[1]


def test_a_whole_store_is_read_by_one_open_a_marker(
    tmp_path: Path, provenance: Provenance, write_shard: WriteShard, looks: Counter[tuple[str, str]]
) -> None:
    writer = LatentWriter.open(tmp_path / "s.zarr", with_shards(provenance, 4))
    for shard in range(4):
        write_shard(writer, shard)
    looks.clear()
    store = Store(writer.store.root)
    records = store.records()
    markers = {str(store.marker(shard)) for shard in range(4)}
    assert {key: count for key, count in looks.items() if key[1] in markers} == {("open", one): 1 for one in markers}
    assert looks["stat", str(store.group)] <= 2
    looks.clear()
    assert [store.damage(record) for record in records] == [[]] * 4
    files = [str(store.root / name) for record in records for name in record.files]
    assert {key: count for key, count in looks.items() if key[0] == "stat"} == {("stat", one): 1 for one in files}


# --- what killed writers left in the folders that shards share ----------------------------------


def leave(store: Store, shard: int) -> list[Path]:
    """A status file and a marker that were never finished."""
    left = [store.statuses / f"{shard}.0123abcd.partial", store.markers / f"{shard:05d}.json.89.partial"]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    return left


def test_leftovers_of_shards_that_nobody_holds_are_removed_and_those_of_others_stay(
    tmp_path: Path, provenance: Provenance, write_shard: WriteShard
) -> None:
    provenance = with_shards(provenance, 4)
    writer, other = (LatentWriter.open(tmp_path / "s.zarr", provenance) for _ in range(2))
    assert other.take(2)
    gone, held, mine = (leave(writer.store, shard) for shard in (3, 2, 0))
    with writer.claim(0):
        write_shard(writer, 0)
    assert not any(path.exists() for path in (*gone, *mine))
    assert all(path.exists() for path in held)
    # The other one is killed meanwhile: its claim ends, what it was writing stays, and its shard is written by us.
    other.close()
    with writer.claim(2):
        write_shard(writer, 2)
    writer.close()
    assert not any(path.exists() for path in held)
    assert writer.store.done() == {0, 2}


def test_a_claim_is_not_lost_by_sweeping(tmp_path: Path, provenance: Provenance, write_shard: WriteShard) -> None:
    provenance = with_shards(provenance, 3)
    writer, other = (LatentWriter.open(tmp_path / "s.zarr", provenance) for _ in range(2))
    assert writer.take(1)
    leave(writer.store, 1)
    with writer.claim(0):
        write_shard(writer, 0)
    assert not other.take(1)
    assert other.take(0)


def test_names_that_are_no_shard_are_left_alone(
    tmp_path: Path, provenance: Provenance, write_shard: WriteShard
) -> None:
    writer = LatentWriter.open(tmp_path / "s.zarr", with_shards(provenance, 2))
    odd = [writer.store.markers / name for name in ("x.partial", "00007.json.1.partial", ".partial")]
    for path in odd:
        path.write_bytes(b"?")
    write_shard(writer, 0)
    writer.close()
    assert all(path.exists() for path in odd)


# --- reading JSON ---------------------------------------------------------------------------------


def test_what_is_no_regular_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    import socket

    os.mkfifo(tmp_path / "pipe")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    server.close()
    for name in ("pipe", "socket", "/dev/zero"):
        with pytest.raises(ContractError, match="is no regular file"):
            read_json(tmp_path / name)
    with pytest.raises(ContractError, match="cannot be read: Is a directory"):
        read_json(tmp_path)
    with pytest.raises(ContractError, match="cannot be read: No such file"):
        read_json(tmp_path / "absent")
    (tmp_path / "utf16").write_bytes('{"a": 1}'.encode("utf-16"))
    with pytest.raises(ContractError, match="not JSON"):
        read_json(tmp_path / "utf16")
