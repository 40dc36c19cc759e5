"""`sample-frames`: every row stays, failures have a reason, a killed run goes on."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from lary_data.tools.sample_frames import command
from lary_schema.base import ContractError, TooManyFailedError
from lary_schema.cards import DatasetCard, Labels, VideoColumns


def call(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments])


def table(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_every_row_stays_and_says_how_it_went(tmp_path: Path, write_clip) -> None:
    media = tmp_path / "media"
    write_clip(media / "Übung ☃.mp4", 40, moving=range(20, 30))
    write_clip(media / "short.mp4", 5)
    write_clip(media / "one.mp4", 1)
    whole = (media / "Übung ☃.mp4").read_bytes()
    (media / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (media / "text.mp4").write_text("a text")
    (media / "empty.mp4").touch()
    source = tmp_path / "in.csv"
    source.write_text(
        "\ufeffaction,video_path\r\n"
        '"a, b",Übung ☃.mp4\r\nc,short.mp4\r\nd,one.mp4\r\ne,cut.mp4\r\nf,text.mp4\r\ng,empty.mp4\r\nh,gone.mp4\r\n'
        "\r\ni,../x.mp4\r\nj,\r\nk,l,m\r\nn,Übung ☃.mp4\r\n",
        encoding="utf-8",
    )
    result = call(source, "--out", tmp_path / "out.csv", "--media", media, "--workers", 1)
    assert isinstance(result.exception, TooManyFailedError)
    assert "8 of 11 rows failed" in str(result.exception)
    header, *rows = table(tmp_path / "out.csv")
    assert header == ["action", "video_path", "sample_indices", "sampling"]
    assert [row[:2] for row in rows if len(row) == 4] == [
        ["a, b", "Übung ☃.mp4"], ["c", "short.mp4"], ["d", "one.mp4"], ["e", "cut.mp4"], ["f", "text.mp4"],
        ["g", "empty.mp4"], ["h", "gone.mp4"], ["i", "../x.mp4"], ["j", ""], ["n", "Übung ☃.mp4"],
    ]  # fmt: skip
    assert rows[9] == ["k", "l", "m"]
    by_name = {row[1]: row[2:] for row in rows if len(row) == 4}
    assert by_name["short.mp4"] == ["0,1,2,3,4,4,4,4,4", "uniform (short)"]
    indices, how = by_name["Übung ☃.mp4"]
    assert how == "motion"
    assert [20 <= int(i) <= 31 for i in indices.split(",")] == [True] * 9
    failed = {name: how for name, (cell, how) in by_name.items() if not cell}
    assert failed.pop("one.mp4") == "failed: one.mp4: has one frame, which shows no motion"
    assert failed.pop("cut.mp4").startswith("failed: cut.mp4: Invalid data")
    assert failed.pop("text.mp4").startswith("failed: text.mp4: Invalid data")
    assert failed.pop("empty.mp4") == "failed: empty.mp4: the file is empty"
    assert failed.pop("gone.mp4") == "failed: gone.mp4: No such file or directory"
    assert failed.pop("").startswith("failed: the path is empty")
    assert "'..'" in failed.pop("../x.mp4")
    assert failed == {}
    assert "row 9 has 3 cells" in result.stderr


def test_failures_may_be_allowed(tmp_path: Path, write_clip) -> None:
    write_clip(tmp_path / "a.mp4", 5)
    (tmp_path / "in.csv").write_text("video_path\na.mp4\nb.mp4\n")
    assert call(tmp_path / "in.csv", "--out", tmp_path / "o.csv", "--workers", 1, "--max-failed", 0.5).exit_code == 0
    assert call(tmp_path / "in.csv", "--out", tmp_path / "o.csv", "--workers", 1, "--max-failed", 0.4).exit_code != 0


def test_old_indices_are_replaced_in_place(tmp_path: Path, write_clip) -> None:
    write_clip(tmp_path / "a.mp4", 5)
    path = tmp_path / "in.csv"
    path.write_text('sample_indices,video_path,action\n"1,2",a.mp4,x\n')
    assert call(path, "--out", path, "--method", "uniform", "--frames", 3, "--workers", 1).exit_code == 0
    assert table(path) == [
        ["sample_indices", "video_path", "action", "sampling"],
        ["0,1,3", "a.mp4", "x", "uniform"],
    ]


@pytest.mark.parametrize("text", ["", "video_path\n", "path\na.mp4\n"])
def test_a_csv_without_clips_is_refused_and_writes_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "in.csv").write_text(text)
    result = call(tmp_path / "in.csv", "--out", tmp_path / "out.csv")
    assert isinstance(result.exception, ContractError)
    assert "in.csv" in str(result.exception)
    assert not (tmp_path / "out.csv").exists()


def test_a_dataset_gives_folder_columns_and_frames(tmp_path: Path, write_clip, publish) -> None:
    card = DatasetCard(
        key="mine", title="mine", task="classification", columns=VideoColumns(video="clip", indices="at"),
        metadata=("{split}.csv",), media="clips/{split}", frames=4, labels=Labels(), license="x", source="x",
    )  # fmt: skip
    write_clip(tmp_path / "clips" / "val" / "a.mp4", 8)
    (tmp_path / "val.csv").write_text("clip,action\na.mp4,x\n")
    publish(tmp_path, card)
    assert call("-d", "mine", "--split", "val", "--out", tmp_path / "o.csv", "--workers", 1).exit_code == 0
    assert table(tmp_path / "o.csv") == [
        ["clip", "action", "at", "sampling"],
        ["a.mp4", "x", "0,2,4,6", "uniform (short)"],
    ]
    refused = call("-d", "mine", "--split", "test", "--out", tmp_path / "o.csv")
    assert "--split train|val" in str(refused.exception)


def test_only_changed_clips_are_read_again(tmp_path: Path, write_clip) -> None:
    write_clip(tmp_path / "a.mp4", 5)
    write_clip(tmp_path / "b.mp4", 5)
    (tmp_path / "in.csv").write_text("video_path\na.mp4\nb.mp4\n")
    arguments = (tmp_path / "in.csv", "--out", tmp_path / "o.csv", "--workers", 1)
    assert call(*arguments).exit_code == 0
    log = tmp_path / "o.csv.answers"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    log.write_text("".join(json.dumps([key, [[7] * 9, "remembered"]]) + "\n" for key, _ in lines))
    write_clip(tmp_path / "b.mp4", 6)
    assert call(*arguments).exit_code == 0
    assert table(tmp_path / "o.csv")[1:] == [
        ["a.mp4", "7,7,7,7,7,7,7,7,7", "remembered"],
        ["b.mp4", "0,1,2,3,4,5,5,5,5", "uniform (short)"],
    ]
    assert call(*arguments, "--frames", 5).exit_code == 0
    assert table(tmp_path / "o.csv")[1] == ["a.mp4", "0,1,2,3,4", "uniform (short)"]


def test_a_killed_run_goes_on(tmp_path: Path, write_clip) -> None:
    names = [f"{i:02}.mp4" for i in range(14)]
    for i, name in enumerate(names):
        write_clip(tmp_path / name, 22 + i, moving=range(i // 2, i // 2 + 10))
    (tmp_path / "in.csv").write_text("video_path\n" + "\n".join(names) + "\n")
    code = "from lary_data.tools.sample_frames import command; command()"
    base = [sys.executable, "-c", code, str(tmp_path / "in.csv"), "--workers", "1"]
    subprocess.run([*base, "--out", str(tmp_path / "whole.csv")], check=True, capture_output=True)
    log = tmp_path / "o.csv.answers"
    # It comes no further than to a pipe that nobody writes to, however late the kill comes.
    (tmp_path / names[9]).rename(tmp_path / "aside.mp4")
    os.mkfifo(tmp_path / names[9])
    process = subprocess.Popen([*base, "--out", str(tmp_path / "o.csv")], stderr=subprocess.DEVNULL)
    while not (log.exists() and log.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (tmp_path / "aside.mp4").replace(tmp_path / names[9])
    kept = log.read_bytes()
    assert 3 <= kept.count(b"\n") < len(names)
    assert not (tmp_path / "o.csv").exists()
    subprocess.run([*base, "--out", str(tmp_path / "o.csv")], check=True, capture_output=True)
    assert (tmp_path / "o.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert log.read_bytes().startswith(kept[: kept.rindex(b"\n") + 1])
    assert log.read_bytes().count(b"\n") == len(names)
