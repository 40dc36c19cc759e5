"""Success of policies: shares, intervals, differences, and what stands in one table."""

import io
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lary_results.evaluation_tables import paired_json, paired_table, pairs, print_evaluations, tables
from lary_results.evaluations import Board, Standing, boards, read_evaluations
from lary_results.printing import nothing_yet
from lary_results.published_policies import UNKNOWN, figures, notes, papers, shown
from lary_results.report.embedded import MIB
from lary_results.report.evidence import gather
from lary_results.report.page import page
from lary_results.report.policies import anchor
from lary_schema.base import ContractError
from lary_schema.evaluation import Episode, EpisodeProtocol, EvaluateValues, EvaluationResult
from lary_schema.intervals import wilson


def episode(state: int, success: bool = False, **more: Any) -> Episode:
    return Episode.model_validate({"state": state, "success": success, "steps": 5, "trace_sha256": "0"} | more)


def write(results: Path, policy: str, episodes: Sequence[Episode], task: str = "lift", **more: Any) -> Path:
    protocol = EpisodeProtocol.model_validate({"horizon": 9, "settle": 2} | more.pop("protocol", {}))
    values = EvaluateValues.model_validate(
        {
            **{"policy": policy, "policy_code_sha256": "p", "benchmark": "world", "benchmark_code_sha256": "b"},
            **{"task": task, "states": [one.state for one in episodes], "seed": 0, "protocol": protocol},
        }
        | more
    )
    result = EvaluationResult(
        fingerprint=values.fingerprint, values=values, episodes=tuple(episodes), simulator_image="i"
    )
    path = results / "evaluate/world" / policy / f"{task}.s{values.seed}.{values.fingerprint[:12]}" / "evaluation.json"
    path.parent.mkdir(parents=True)
    path.write_text(result.to_json(), encoding="utf-8")
    return path


def only(results: Path) -> Board:
    (board,) = boards(read_evaluations(results))
    return board


def test_wilson_is_wilsons() -> None:
    """Newcombe 1998, table II: 81 of 263, 15 of 148, 0 of 20 and 1 of 29."""
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (successes, trials), limits in published.items():
        assert wilson(successes, trials) == pytest.approx(limits, abs=5e-5)
        low, high = wilson(trials - successes, trials)
        assert (1 - high, 1 - low) == pytest.approx(limits, abs=5e-5)
    assert wilson(0, 5)[0] == 0
    assert wilson(5, 5)[1] == 1
    with pytest.raises(ValueError, match="no trials"):
        wilson(0, 0)


def test_wilson_is_what_a_score_test_does_not_reject() -> None:
    """From its definition: at both ends the share seen is 1.959964 of the end's own standard errors away."""
    for trials in (1, 2, 3, 10, 50, 500):
        for successes in range(0, trials + 1, max(1, trials // 10)):
            share = successes / trials
            for end in wilson(successes, trials):
                if end not in (0, 1):
                    assert abs(share - end) == pytest.approx(1.959964 * (end * (1 - end) / trials) ** 0.5, rel=1e-6)
                else:
                    assert end == share


def both(scores: "np.ndarray[Any, np.dtype[np.float64]]") -> Board:
    """Policies a and b, of scores (2, seeds, states)."""
    board = Board("world", EpisodeProtocol(horizon=9, settle=2), "b")
    for name, rows in zip("ab", scores, strict=True):
        episodes = {seed: {n: episode(n, bool(one)) for n, one in enumerate(row)} for seed, row in enumerate(rows)}
        board.standings[name] = Standing(name, {"lift": episodes})
    return board


def drawn(chance: np.random.Generator, seeds: int, states: int, more: float = 0.0) -> Any:
    """Successes (2, seeds, states) of two policies: some states are harder than others, for both; a has `more`."""
    hard = np.clip(chance.normal(0.5, 0.25, states), 0.05, 0.95)
    share = np.stack([np.clip(hard + more, 0, 1), hard])[:, None]
    return chance.random((2, seeds, states)) < share, float((share[0] - share[1]).mean())


@pytest.mark.parametrize(("states", "quantile"), [(2, 12.70620), (5, 2.776445), (20, 2.093024)])
def test_a_paired_difference_holds_the_interval_of_a_paired_t_test(states: int, quantile: float) -> None:
    """With the 97.5 % quantiles of Student's t as tables have them."""
    chance = np.random.default_rng(states)
    for _ in range(8):
        scores, _more = drawn(chance, 1, states)
        made = both(scores).difference("a", "b")
        assert made is not None
        paired = scores[0, 0].astype(float) - scores[1, 0]
        assert made.value == pytest.approx(paired.mean())
        assert (made.better, made.worse) == ((paired > 0).sum(), (paired < 0).sum())
        if paired.std() == 0:
            assert made.low < made.value < made.high or abs(made.value) == 1
            continue
        half = quantile * paired.std(ddof=1) / states**0.5
        assert made.low <= max(-1, paired.mean() - half) + 1e-5
        assert made.high >= min(1, paired.mean() + half) - 1e-5


@pytest.mark.parametrize(("seeds", "more"), [(1, 0.3), (2, 0.3), (3, 0.0)])
def test_intervals_of_successes_hold_the_truth(seeds: int, more: float) -> None:
    """Of 40 evaluations each, with fixed draws: nineteen of twenty is what is claimed, and five may miss by chance."""
    chance = np.random.default_rng(seeds)
    held = {"difference": 0, "rate": 0}
    for _ in range(40):
        scores, truth = drawn(chance, seeds, 16, more)
        board = both(scores)
        made, rate = board.difference("a", "b"), board.standings["b"].rate(["lift"])
        assert made is not None
        assert rate is not None
        # What is claimed is of other states too, so the truth is that of all states.
        held["difference"] += made.low <= truth <= made.high
        held["rate"] += rate.low <= 0.5 <= rate.high
    assert min(held.values()) >= 35


def test_one_seed_over_two_tasks(tmp_path: Path) -> None:
    write(tmp_path, "a", [episode(n, n < 3) for n in range(4)])
    write(tmp_path, "a", [episode(n) for n in range(4)], task="push")
    board = only(tmp_path)
    standing = board.standings["a"]
    assert standing.rate(["lift"]) == (0.75, *wilson(3, 4), 4)
    assert standing.rate(board.tasks) == (0.375, *wilson(3, 8), 8)
    assert standing.rate(["drop"]) is None
    assert standing.steps == 5


def test_faults_of_the_policy_count_and_others_do_not(tmp_path: Path) -> None:
    faults = ("bad_actions", "refused", "policy_timeout", "simulator_error")
    write(tmp_path, "a", [episode(9, True), *(episode(n, fault=fault) for n, fault in enumerate(faults))])
    standing = only(tmp_path).standings["a"]
    rate = standing.rate(["lift"])
    assert rate is not None
    assert (rate.value, rate.episodes) == (pytest.approx(1 / 3), 3)
    assert (standing.faults, standing.not_evaluated) == (2, 2)


def test_seeds_are_nested_in_states(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path, "a", [episode(n, (n + seed) % 3 > 0) for n in range(12)], seed=seed)
        write(tmp_path, "b", [episode(n, n % 3 > 0) for n in range(12)], seed=seed)
    board = only(tmp_path)
    a, b = (board.standings[name].rate(["lift"]) for name in "ab")
    assert a is not None
    assert b is not None
    assert (a.value, a.episodes, b.value) == (pytest.approx(2 / 3), 36, pytest.approx(2 / 3))
    # Where seeds always agree, more of them tell nothing new: the interval is one over twelve states.
    low, high = wilson(8, 12)
    assert b.high - b.low > 0.8 * (high - low)
    assert a.high - a.low < b.high - b.low


def test_a_difference_is_paired_by_state(tmp_path: Path) -> None:
    write(tmp_path, "a", [episode(n, n != 5) for n in range(30)])
    write(tmp_path, "b", [episode(n, n % 2 == 0) for n in range(5, 40)])
    write(tmp_path, "c", [episode(n) for n in range(100, 110)])
    board = only(tmp_path)
    made = board.difference("a", "b")
    assert made is not None
    assert (made.states, made.better, made.worse) == (25, 12, 0)
    assert made.value == pytest.approx(12 / 25)
    assert 0 < made.low < made.value < made.high <= 1
    assert made.verdict == "a is better"
    assert board.difference("a", "c") is None
    with pytest.raises(ContractError, match="no initial state"):
        pairs([board], "a", "c")
    with pytest.raises(ContractError, match=r"no evaluated policy 'd'"):
        pairs([board], "a", "d")


@pytest.mark.parametrize(
    "other",
    [{"protocol": {"settle": 3}}, {"protocol": {"use": 1}}, {"protocol": {"first": 1}}, {"benchmark_code_sha256": "c"}],
)
def test_another_protocol_or_simulator_is_another_table(tmp_path: Path, other: dict[str, Any]) -> None:
    write(tmp_path, "a", [episode(0, True)])
    write(tmp_path, "b", [episode(0)], **other)
    made = boards(read_evaluations(tmp_path))
    assert [list(board.standings) for board in made] in ([["a"], ["b"]], [["b"], ["a"]])


def test_policies_that_saw_other_pictures_stand_apart_and_those_that_saw_none_in_both(tmp_path: Path) -> None:
    write(tmp_path, "zero", [episode(0)])
    write(tmp_path, "seen", [episode(0, True)], renderer="osmesa")
    write(tmp_path, "seen", [episode(0)], renderer="egl")
    write(tmp_path, "other", [episode(0)], renderer="egl", libraries={"mujoco": "3"})
    made = boards(read_evaluations(tmp_path))
    found = {(board.renderer, *board.libraries): sorted(board.standings) for board in made}
    assert found == {("egl",): ["seen", "zero"], ("osmesa",): ["seen", "zero"], ("egl", "mujoco"): ["other"]}
    rates = {board.renderer: board.standings["seen"].rate(["lift"]) for board in made if "seen" in board.standings}
    assert {name: rate.value for name, rate in rates.items() if rate is not None} == {"egl": 0, "osmesa": 1}
    titles = {board.renderer: tables(board)[0].title for board in made if board.libraries}
    assert "simulator b, mujoco 3, drawn by egl, horizon 9" in titles["egl"]
    assert len({anchor(board) for board in made}) == 3


def test_without_a_policy_that_sees_there_is_one_board(tmp_path: Path) -> None:
    for policy in ("zero", "random"):
        write(tmp_path, policy, [episode(0)])
    assert only(tmp_path).renderer is None


def test_of_one_cell_the_newer_counts(tmp_path: Path) -> None:
    import os

    for nth, code in enumerate("pqr"):
        os.utime(write(tmp_path, "a", [episode(0, code == "q")], policy_code_sha256=code), (nth % 2, nth % 2))
    rate = only(tmp_path).standings["a"].rate(["lift"])
    assert rate is not None
    assert rate.value == 1


def test_where_there_are_evaluations_alone_the_table_of_probes_names_their_command(tmp_path: Path) -> None:
    assert "makes them" in nothing_yet(tmp_path)
    write(tmp_path, "a", [episode(0)])
    assert "evaluate --results" in nothing_yet(tmp_path)


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a", [episode(0)])
    content = json.loads(path.read_text(encoding="utf-8"))
    for change in ({"fingerprint": "other"}, {"episodes": []}, {"version": 2}):
        path.write_text(json.dumps(content | change), encoding="utf-8")
        broken: list[str] = []
        assert list(read_evaluations(tmp_path, broken)) == []
        assert str(path) in broken[0]
        with pytest.raises(ContractError):
            list(read_evaluations(tmp_path))


def test_what_people_and_programs_read(tmp_path: Path) -> None:
    write(tmp_path, "a", [episode(0, True, held=True), episode(1, True, held=False)], protocol={"hold": 4})
    write(tmp_path, "zero", [episode(0), episode(1, fault="policy_timeout")], protocol={"hold": 4})
    found = boards(read_evaluations(tmp_path))
    out = io.StringIO()
    print_evaluations(found, out=out)
    text = out.getvalue()
    assert "horizon 9, settle 2, all of a chunk from index 0, held for 4" in text
    assert [line.split()[0] for line in text.splitlines() if line.startswith(("a ", "zero "))] == ["a", "zero"]
    assert "100.0 [34.2, 100.0]  50.0 [9.5, 90.5]" in text
    out = io.StringIO()
    print_evaluations(found, out=out, json=True)
    (board,) = json.loads(out.getvalue())
    a, zero = board["policies"]
    assert (a["success"]["value"], a["held"]["value"], zero["not_evaluated"]) == (1, 0.5, 1)
    out = io.StringIO()
    print_evaluations(found, ("a", "zero"), out, json=True)
    whole, lift = json.loads(out.getvalue())
    assert (whole["task"], lift["task"], whole["states"], whole["low"]) == (None, "lift", 1, None)
    assert whole["verdict"] == "one state: no interval"


@pytest.mark.parametrize("left_out", ["a task", "a state", "an episode that was not evaluated"])
def test_what_not_every_seed_has_evaluated_is_in_no_share_and_the_table_says_so(tmp_path: Path, left_out: str) -> None:
    for seed in (0, 1):
        lost = {"fault": "policy_timeout"} if left_out.startswith("an episode") and seed else {"success": True}
        states = [episode(0), episode(1), episode(2, **lost)]
        write(tmp_path, "a", states[: 2 if left_out == "a state" and seed else 3], seed=seed)
        if left_out != "a task" or not seed:
            write(tmp_path, "a", [episode(0, True)], task="push", seed=seed)
    board = only(tmp_path)
    rate = board.standings["a"].rate(board.tasks)
    assert rate is not None
    used, there, value = {"a task": (6, 7, 1 / 3)}.get(left_out, (6, 7 if left_out == "a state" else 8, 1 / 3))
    assert (rate.episodes, rate.value) == (used, pytest.approx(value))
    (whole, _) = tables(board)
    assert whole.rows[0][3] == f"{used} of {there}"
    assert any("that every seed has evaluated" in note for note in whole.notes)


def test_pairs_of_several_tables_are_told_apart(tmp_path: Path) -> None:
    for horizon in (9, 5):
        for policy in "ab":
            write(tmp_path, policy, [episode(0, policy == "a"), episode(1)], protocol={"horizon": horizon})
    made = pairs(boards(read_evaluations(tmp_path)), "a", "b")
    table = paired_table(made, "a", "b")
    assert [row[:2] for row in table.rows] == [(f"world {n}", task) for n in (1, 2) for task in ("all tasks", "lift")]
    horizons = [board.protocol.horizon for board, one in made if one.task is None]
    found = [note for note in table.notes if note.startswith("world ")]
    assert [f"horizon {horizon}, settle 2" in note for horizon, note in zip(horizons, found, strict=True)] == [True] * 2
    assert [one["protocol"]["horizon"] for one in paired_json(made)] == [n for n in horizons for _ in range(2)]
    # Of one table no number is needed.
    assert {row[0] for row in paired_table(made[:2], "a", "b").rows} == {"world"}


def test_a_table_says_that_baselines_do_all_that_they_send(tmp_path: Path) -> None:
    for protocol, said in (({}, False), ({"first": 1}, True), ({"use": 2}, True)):
        for policy in ("a", "zero", "scripted"):
            write(tmp_path / str(protocol), policy, [episode(0)], protocol=protocol)
        (whole, _) = tables(only(tmp_path / str(protocol)))
        assert ("scripted, zero: what a baseline sends is done whole." in whole.notes) == said


@pytest.mark.parametrize("there", [(), ("random",), ("scripted", "replay"), ("random", "replay", "scripted", "zero")])
def test_every_table_has_the_baselines_and_says_which_nobody_evaluated(tmp_path: Path, there: Sequence[str]) -> None:
    for policy in ("mine", *there):
        write(tmp_path, policy, [episode(0, success=policy == "mine")])
    missing = [name for name in ("scripted", "random", "replay", "zero") if name not in there]
    (whole, by_task), out = tables(only(tmp_path)), io.StringIO()
    values = {row[0]: row[1:] for row in whole.rows}
    assert set(values) == {"mine", "scripted", "random", "replay", "zero"}
    assert [name for name, row in values.items() if set(row) == {"-"}] == missing
    assert set(by_task.columns) == {"task", "mine", *there}
    said = [note for note in whole.notes if note.startswith("Baselines that are not evaluated")]
    assert len(said) == bool(missing)
    assert all(f"-m {','.join(missing)} " in note for note in said)
    print_evaluations([only(tmp_path)], out=out, json=True)
    assert json.loads(out.getvalue())[0]["baselines_missing"] == missing


def test_one_state_with_several_seeds_has_no_interval(tmp_path: Path) -> None:
    for policy, seed in [("a", 0), ("a", 1), ("b", 0), ("b", 1)]:
        write(tmp_path, policy, [episode(4, success=seed == 0)], seed=seed)
    board = only(tmp_path)
    assert {row[0]: row[1] for row in tables(board)[0].rows if row[0] in "ab"} == dict.fromkeys(
        "ab", "50.0 no interval"
    )
    assert {row[3] for row in paired_table(pairs([board], "a", "b"), "a", "b").rows} == {"no interval"}
    text = page(gather(tmp_path, tmp_path / "runs"), 0, datetime(2026, 1, 1, tzinfo=UTC)).decode()
    assert re.findall(r".{0,30}\bnan\b.{0,9}", text) == []
    assert "50.0 no interval" in text


def test_the_page_shows_them(tmp_path: Path) -> None:
    """Beside no probe at all; a file that is none is named, and what others wrote is text."""
    write(tmp_path, "a", [episode(0, True), episode(1)])
    write(tmp_path, "zero", [episode(0), episode(1, fault="refused", detail="<b>")], seed=2)
    (tmp_path / "evaluate/world/a/x").mkdir()
    (tmp_path / "evaluate/world/a/x/evaluation.json").write_text("{", encoding="utf-8")
    text = page(gather(tmp_path, tmp_path / "runs"), 1, datetime.now(UTC)).decode()
    assert "Policies on world" in text
    (link,) = re.findall('<a href="#([^"]*)" class="first">policies on world</a>', text)
    assert f'id="{link}"' in text
    assert "50.0 [9.5, 90.5]" in text
    assert "x/evaluation.json" in text
    assert "No results in" not in text


# --- published figures ------------------------------------------------------------------------

SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10")
LARA = {"horizon": 720, "settle": 10, "first": 1, "use": 1}


def evaluated(
    results: Path, tasks: int = 10, episodes: int = 20, benchmark: str = "libero_object", **protocol: Any
) -> Any:
    for task in range(tasks):
        rows = [episode(state, state % 2 == 0) for state in range(episodes)]
        write(results, "ours", rows, task=str(task), benchmark=benchmark, protocol=LARA | protocol)
    (board,) = boards(read_evaluations(results))
    return board


def test_printed_means_are_those_of_the_suites() -> None:
    rows = [(name, row) for paper in papers() for name, row in paper["policies"].items()]
    assert len(rows) == 9
    for name, row in rows:
        suites = [row[suite] for suite in SUITES if suite in row]
        assert all(0 <= value <= 100 for value in row.values())
        if len(suites) == len(SUITES):
            assert row["mean"] == pytest.approx(sum(suites) / len(SUITES), abs=0.0501), name
        else:
            assert name == "LA-Cond"
    for paper in papers():
        assert paper["page"].startswith("https://arxiv.org/")
        assert paper["source"].startswith("arXiv ")
        assert paper["read"]
        assert paper["protocol_source"]


def test_shown_where_the_protocol_is_the_same(tmp_path: Path) -> None:
    board = evaluated(tmp_path)
    assert shown(board) == {"LARA without alignment": 90.0, "LARA": 92.0}
    out = io.StringIO()
    print_evaluations([board], out=out)
    lines = out.getvalue().splitlines()
    assert [line.split()[:3] for line in lines if line.startswith("LARA (")] == [["LARA", "(published)", "92.0"]]
    assert "published: arXiv 2606.07100 v1" in out.getvalue()
    assert "97.5" not in out.getvalue()
    assert f"  a  {UNKNOWN}" in lines


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"horizon": 280}, "another horizon: 280 here, 720 there"),
        ({"settle": 0}, "another number of settle steps: 0 here, 10 there"),
        ({"first": 0}, "another first action of a chunk: 0 here, 1 there"),
        ({"use": None}, "another number of actions done of a chunk: all here, 1 there"),
        ({"use": 8}, "another number of actions done of a chunk: 8 here, 1 there"),
        ({"tasks": 9}, "no policy here has 20 episodes of each of 10 tasks"),
        ({"episodes": 19}, "no policy here has 20 episodes of each of 10 tasks"),
    ],
)
def test_otherwise_a_letter_says_why(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    board = evaluated(tmp_path, **change)
    assert shown(board) == {}
    assert f"  a  {reason}" in notes(board)
    assert any("LARA (a); GR00T-N1.6 with LARA (b); From Pixels to Tokens (b)" in note for note in notes(board))
    out = io.StringIO()
    print_evaluations([board], out=out)
    assert "(published)" not in out.getvalue()


def test_episodes_that_were_not_evaluated_do_not_count(tmp_path: Path) -> None:
    evaluated(tmp_path, tasks=9)
    rows = [episode(state, fault="simulator_error" if state == 3 else None) for state in range(20)]
    write(tmp_path, "ours", rows, task="9", benchmark="libero_object", protocol=LARA)
    (board,) = boards(read_evaluations(tmp_path))
    assert shown(board) == {}


def test_a_benchmark_without_figures_has_no_word_of_them(tmp_path: Path) -> None:
    board = evaluated(tmp_path, tasks=1, benchmark="demo_turn")
    assert notes(board) == ()
    out = io.StringIO()
    print_evaluations([board], out=out, json=True)
    assert json.loads(out.getvalue())[0]["published"] == []


def test_programs_get_figures_and_reasons(tmp_path: Path) -> None:
    out = io.StringIO()
    print_evaluations([evaluated(tmp_path, benchmark="libero_10")], out=out, json=True)
    lara, groot, tokens = json.loads(out.getvalue())[0]["published"]
    assert lara["success"]["LARA"] == 0.86
    assert lara["not_comparable"] == ["another horizon: 720 here, 1000 there"]
    assert groot["not_comparable"] == tokens["not_comparable"] == [UNKNOWN]
    assert tokens["success"]["LA-Direct"] == 0.966
    assert "LA-Cond" not in figures(papers()[2], "libero_object")


# --- videos -----------------------------------------------------------------------------------


def film(results: Path, policy: str, *episodes: Episode, size: int = 300, **more: Any) -> None:
    """An evaluation, and a file for each of these episodes that has a video."""
    folder = write(results, policy, episodes, **more).parent
    for one in episodes:
        if one.steps:
            path = folder / one.video
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"\0\0\0\x20ftypisom".ljust(size, b"\0"))


def videos_shown(results: Path, mib: float = 1) -> list[str]:
    text = page(gather(results, results / "runs"), mib, datetime.now(UTC)).decode()
    return re.findall(r'<video src="data:video/mp4;base64,[^"]+" aria-label="([^"]+)"', text)


def test_videos_are_in_the_page_with_what_came_out(tmp_path: Path) -> None:
    film(tmp_path, "a", episode(0), episode(3, True, steps=7), episode(4, fault="refused"), episode(5, steps=0), seed=2)
    assert videos_shown(tmp_path) == [
        "lift, state 3, seed 2: success after 7 steps",
        "lift, state 0, seed 2: no success in 5 steps",
        "lift, state 4, seed 2: refused after 5 steps",
    ]


def test_of_videos_that_do_not_fit_every_policy_has_some(tmp_path: Path) -> None:
    """A success and a failure of each first; the page says how many it leaves out."""
    for policy in "abc":
        film(tmp_path, policy, *(episode(n, n < 3) for n in range(6)), size=1000)
    assert len(videos_shown(tmp_path)) == 18
    found = videos_shown(tmp_path, 6 * 1000 / MIB)
    assert found == ["lift, state 0, seed 0: success after 5 steps", "lift, state 3, seed 0: no success in 5 steps"] * 3
    text = page(gather(tmp_path, tmp_path / "runs"), 6 * 1000 / MIB, datetime.now(UTC)).decode()
    assert text.count("4 more in ") == 3
    assert videos_shown(tmp_path, 0) == []


def test_a_file_that_is_no_video_or_of_another_episode_is_not_videos_shown(tmp_path: Path) -> None:
    film(tmp_path, "a", episode(0), episode(1, True))
    first, second = sorted(tmp_path.rglob("*.mp4"))
    first.write_bytes(b"<script>")
    second.rename(second.with_name("1-ffff.mp4"))
    assert videos_shown(tmp_path) == []
    assert "media-src data:" in page(gather(tmp_path, tmp_path / "runs"), 1, datetime.now(UTC)).decode()
