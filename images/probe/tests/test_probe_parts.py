"""The probe's parts by themselves: networks, schedules, sampling, scores, commands."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lary_probe.attentive import AttentiveClassifier
from lary_probe.groups import Groups
from lary_probe.mlp import ResidualMlp
from lary_probe.plots import plot_confusion
from lary_probe.run import check_job
from lary_probe.sampling import balanced_order, holdout_random, holdout_stratified, shares_of
from lary_probe.scoring import class_scores, confusion, interval_of, macro_recall, r_squared
from lary_probe.selftest import selftest
from lary_probe.streams import Streams
from lary_probe.training import cosine, warm_up
from lary_schema.base import ContractError, ExitCode
from lary_schema.events import Finished, Started, _Event


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("time_axis", [True, False])
@pytest.mark.parametrize(("width", "depth"), [(16, 1), (32, 2), (768, 4)])
def test_attentive_parameter_count(width: int, depth: int, time_axis: bool) -> None:
    """Counted from the layout's description alone."""
    dim, classes, w = 24, 5, width
    norm, mlp = 2 * w, (w * 4 * w + 4 * w) + (4 * w * w + w)
    own = norm + (w * 3 * w + 3 * w) + (w * w + w) + norm + mlp
    cross = norm + (w * w + w) + (w * 2 * w + 2 * w) + norm + mlp
    expected = (dim * w + w + norm) + (128 * w if time_axis else 0) + w + (depth - 1) * own + cross
    expected += w * classes + classes
    with torch.device("meta"):
        network = AttentiveClassifier(dim, classes, width=width, depth=depth, heads=4, time_axis=time_axis)
    assert parameters(network) == expected


def test_attentive_forward_is_the_written_formula() -> None:
    """One self-attention block and the pooler, recomputed with torch's own attention and explicit softmax."""
    torch.manual_seed(0)
    net = AttentiveClassifier(6, 3, width=8, depth=2, heads=2, time_axis=True).eval()
    x = torch.randn(4, 2, 3, 6)
    s = net.projector(x) + net.time[:, :2]  # type: ignore[index]
    s = s.reshape(4, 6, 8)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        parts = []
        for h in range(2):
            qh, kh, vh = (t[..., 4 * h : 4 * h + 4] for t in (q, k, v))
            parts.append(torch.softmax(qh @ kh.transpose(1, 2) / 2.0, dim=-1) @ vh)
        return torch.cat(parts, dim=-1)

    block: Any = net.blocks[0]
    n = block.norm1(s)
    weight, bias = block.attention.qkv.weight, block.attention.qkv.bias
    q, k, v = (n @ weight[i * 8 : i * 8 + 8].T + bias[i * 8 : i * 8 + 8] for i in range(3))
    s = s + block.attention.out(attend(q, k, v))
    s = s + block.mlp.down(torch.nn.functional.gelu(block.mlp.up(block.norm2(s))))
    pool = net.pool
    n, query = pool.norm1(s), net.query.expand(4, 1, 8)
    k, v = pool.attention.kv(n).split(8, dim=-1)
    p = query + attend(pool.attention.q(query), k, v)
    p = p + pool.mlp.down(torch.nn.functional.gelu(pool.mlp.up(pool.norm2(p))))
    torch.testing.assert_close(net(x), net.linear(p[:, 0]))


def test_attentive_start() -> None:
    torch.manual_seed(0)
    net = AttentiveClassifier(64, 5, width=64, depth=4, heads=4, time_axis=True)
    blocks: Any = list(net.blocks)
    for layer, block in enumerate(blocks, start=1):
        scale = 0.02 / math.sqrt(2 * layer)
        assert block.attention.out.weight.std().item() == pytest.approx(scale, rel=0.05)
        assert block.mlp.down.weight.std().item() == pytest.approx(scale, rel=0.05)
        assert block.mlp.up.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert net.pool.mlp.down.weight.std().item() == pytest.approx(0.02 / math.sqrt(6), rel=0.05)
    assert net.time is not None
    assert net.time.std().item() == pytest.approx(0.02, rel=0.05)
    biases = [p for name, p in net.named_parameters() if name.endswith("bias") and name != "linear.bias"]
    assert not any(bias.any() for bias in biases)
    # The read-out keeps torch's default: uniform up to 1 / sqrt(64), its bias too.
    assert net.linear.bias.any()
    assert net.linear.weight.std().item() == pytest.approx(1 / 8 / math.sqrt(3), rel=0.1)
    assert net.linear.weight.abs().max().item() <= 1 / 8


def test_long_inputs_resize_the_temporal_embedding() -> None:
    net = AttentiveClassifier(4, 2, width=8, depth=1, heads=2, time_axis=True)
    assert net(torch.randn(2, 200, 1, 4)).shape == (2, 2)
    assert net(torch.randn(2, 128, 1, 4)).shape == (2, 2)


def test_order_of_tokens_is_seen_only_through_time() -> None:
    """Without the temporal embedding the probe is blind to order; with it, it is not."""
    torch.manual_seed(0)
    x = torch.randn(1, 5, 1, 4)
    flat = AttentiveClassifier(4, 3, width=8, depth=2, heads=2, time_axis=False)
    torch.testing.assert_close(flat(x.flatten(1, 2)), flat(x.flip(1).flatten(1, 2)))
    timed = AttentiveClassifier(4, 3, width=8, depth=2, heads=2, time_axis=True)
    assert not torch.equal(timed(x), timed(x.flip(1)))


@pytest.mark.parametrize("blocks", [0, 2])
def test_mlp_parameter_count(blocks: int) -> None:
    inputs, outputs, w = 30, 7, 4096
    expected = (2 * inputs + inputs * w + w) + blocks * (2 * w + w * w + w) + (2 * w + w * outputs + outputs)
    with torch.device("meta"):
        assert parameters(ResidualMlp(inputs, outputs, width=w, blocks=blocks)) == expected
    assert ResidualMlp(6, 7, width=8, blocks=blocks)(torch.zeros(3, 1, 2, 3)).shape == (3, 7)


def test_schedules_at_their_ends() -> None:
    assert [cosine(step, 4) for step in range(4)] == pytest.approx([0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, 0])
    rising = warm_up(0.1)
    assert [rising(step, 40) for step in range(6)] == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1])
    assert warm_up(0.0)(0, 40) == 1
    assert warm_up(0.1)(0, 5) == 1


def test_learning_rate_and_decay_reach_the_weights(toy_classes: Any) -> None:
    """Two steps of a head against AdamW written out by hand, with the cosine's learning rates."""
    from lary_probe.classify import make_heads, make_plan
    from lary_probe.data import open_data
    from lary_probe.session import open_session
    from lary_probe.training import Part, train

    job = toy_classes.job("classify")
    recipe = job.protocol.classify.model_copy(update={"epochs": 2, "batch_size": 64, "optimisers": ((1e-2, 0.3),)})
    job = job.model_copy(update={"protocol": job.protocol.model_copy(update={"classify": recipe})})
    targets = np.arange(36) % 3
    with open_session(job, toy_classes.mounts, lambda event: None) as session:
        data = open_data(job, toy_classes.mounts, lambda: None)
        torch.manual_seed(0)
        heads = make_heads(session, data.train.shape, 3)
        torch.manual_seed(0)
        (by_hand,) = make_heads(session, data.train.shape, 3)
        plan = make_plan(recipe, targets, Streams(5, "upstream"))
        for _ in train(session, heads, plan, Part(data.train, np.arange(36), targets), {}):
            pass
        moments = {p: (torch.zeros_like(p), torch.zeros_like(p)) for p in by_hand.network.parameters()}
        for step in range(2):
            order = balanced_order(targets, 36, 5 + step)
            logits = by_hand.network(data.train.batch(order))
            smooth = torch.nn.functional.one_hot(torch.from_numpy(targets[order]), 3) * 0.9 + 0.1 / 3
            loss = -(smooth * logits.log_softmax(-1)).sum(-1).mean()
            lr = 1e-2 * 0.5 * (1 + math.cos(math.pi * (step + 1) / 2))
            gradients = torch.autograd.grad(loss, list(moments))
            with torch.no_grad():
                for (p, (m, v)), g in zip(moments.items(), gradients, strict=True):
                    m.mul_(0.9).add_(0.1 * g)
                    v.mul_(0.999).add_(0.001 * g * g)
                    p.mul_(1 - lr * 0.3)
                    unbiased = (m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1)))
                    p.sub_(lr * unbiased[0] / (unbiased[1].sqrt() + 1e-8))
    for got, wanted in zip(heads[0].network.parameters(), by_hand.network.parameters(), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_balanced_order_draws_every_class_alike() -> None:
    labels = np.repeat([0, 1, 3], [900, 90, 10])
    order = balanced_order(labels, 30_000, seed=1)
    shares = np.bincount(labels[order], minlength=4) / 30_000
    np.testing.assert_allclose(shares, [1 / 3, 1 / 3, 0, 1 / 3], atol=0.02)
    assert np.array_equal(order, balanced_order(labels, 30_000, seed=1))
    assert not np.array_equal(order, balanced_order(labels, 30_000, seed=2))


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 5),
)
def test_stratified_holdout_leaves_every_class_a_row(counts: list[int], share: float, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    if max(counts) == 1:
        with pytest.raises(ContractError, match="nothing can be held out"):
            holdout_stratified(labels, share, seed)
        return
    held = holdout_stratified(labels, share, seed)
    left = np.bincount(labels[~held], minlength=len(counts))
    assert held.any()
    assert left.min() >= 1
    assert np.all(np.abs((np.array(counts) - left) - share * np.array(counts)) <= 1 + 1e-9)


def test_random_holdout() -> None:
    held = holdout_random(50, 0.1, seed=3)
    assert held.sum() == 5
    assert np.array_equal(held, holdout_random(50, 0.1, seed=3))
    assert holdout_random(2, 0.01, seed=0).sum() == holdout_random(2, 0.99, seed=0).sum() == 1


@given(count=st.integers(1, 60), batch=st.integers(1, 9), processes=st.integers(1, 4))
def test_processes_share_each_batch_and_every_row_once(count: int, batch: int, processes: int) -> None:
    order = np.random.default_rng(count).permutation(count)
    ranks = [shares_of(order, batch, rank, processes) for rank in range(processes)]
    for step, shares in enumerate(zip(*ranks, strict=True)):
        whole = order[step * batch : (step + 1) * batch]
        own = [share.positions.tolist() for share in shares if share.weight]
        assert sorted(index for indices in own for index in indices) == sorted(whole.tolist())
        # The mean over processes of weighted means is the mean over the batch.
        assert np.mean([s.weight * s.positions.mean() for s in shares]) == pytest.approx(whole.mean())
        assert all(len(share.positions) and set(share.positions) <= set(whole) for share in shares)


def rows_of(count: int) -> Groups:
    return Groups(np.arange(count), None)


def test_interval_of_independent_hits_is_the_binomials() -> None:
    hits = np.r_[np.ones(280), np.zeros(120)]
    interval = interval_of([hits], rows_of(400), 4000, 0, (0.0, 1.0))
    half = 1.96 * math.sqrt(0.7 * 0.3 / 400)
    assert interval.low == pytest.approx(0.7 - half, abs=0.006)
    assert interval.high == pytest.approx(0.7 + half, abs=0.006)
    assert (interval.unit, interval.groups, interval.seeds, interval.note) == ("rows", 400, False, None)
    assert interval == interval_of([hits], rows_of(400), 4000, 0, (0.0, 1.0))


def test_bootstrap_in_pieces_has_the_right_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lary_schema.intervals.DRAWS_AT_ONCE", 1000)
    values = np.random.default_rng(0).normal(size=300)
    interval = interval_of([values], rows_of(300), 2000, 0, None)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(300), rel=0.1)


@pytest.mark.parametrize(
    ("count", "note"), [(29, "29 groups, fewer than 30: the interval may be too narrow"), (30, None)]
)
def test_few_groups_are_said(count: int, note: str | None) -> None:
    groups = Groups(np.arange(count).repeat(3), tuple(map(str, range(count))))
    interval = interval_of([np.arange(3.0 * count)], groups, 200, 0, None)
    assert (interval.unit, interval.groups, interval.note) == ("groups", count, note)


def test_class_scores_by_hand() -> None:
    truth, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 0, 1])
    matrix = confusion(truth, predicted, 4)
    assert matrix.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    scores = class_scores(matrix)
    np.testing.assert_allclose(scores.precision, [2 / 3, 1 / 3, 0, 0])
    np.testing.assert_allclose(scores.recall, [2 / 3, 1 / 2, 0, 0])
    np.testing.assert_allclose(scores.f1, [2 / 3, 2 / 5, 0, 0])
    assert macro_recall(matrix) == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)


def test_r_squared() -> None:
    truth = np.random.default_rng(0).normal(size=(50, 3))
    assert r_squared(truth, truth) == 1
    assert r_squared(truth, np.broadcast_to(truth.mean(axis=0), truth.shape)) == pytest.approx(0)
    assert r_squared(np.ones((4, 2)), np.zeros((4, 2))) is None


@pytest.mark.parametrize("classes", [2, 21, 120])
def test_confusion_picture_grows_with_the_classes(tmp_path: Path, classes: int) -> None:
    from matplotlib.image import imread

    path = tmp_path / "matrix.png"
    plot_confusion(path, np.eye(classes, dtype=np.int64), [f"a long label, number {i}" for i in range(classes)], "t")
    height, width, _ = imread(path).shape
    assert height / classes > 15
    assert max(height, width) < 3500


def command(*arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "lary_probe", *arguments],
        capture_output=True, text=True, timeout=280, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"} | env,
    )  # fmt: skip


def test_describe_prints_the_card_without_torch() -> None:
    code = "import sys; from lary_probe.__main__ import main; main(['describe']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280, check=True)
    card = json.loads(done.stdout)
    assert (card["name"], card["kind"], card["module"]) == ("probe", "probe", "lary_probe")
    assert len(card["code_sha256"]) == 64
    assert {"torch", "numpy", "accelerate"} <= set(card["libraries"])


def test_selftest_passes() -> None:
    events: list[_Event] = []
    threads = torch.get_num_threads()
    selftest(events.append)
    torch.set_num_threads(threads)
    assert [type(event) for event in events] == [Started, Finished]


def test_classify_as_a_command(toy_classes: Any, tmp_path: Path) -> None:
    job = tmp_path / "job.json"
    job.write_text(toy_classes.job("classify").to_json())
    done = command("classify", "--job", str(job))
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert (events[0]["event"], events[-1]["event"]) == ("started", "finished")
    assert toy_classes.document("result.json")["splits"]["val"]["value"] == 1.0


def test_a_job_of_the_other_kind_is_refused(toy_classes: Any) -> None:
    with pytest.raises(ContractError, match="is to be done by `classify`, not by `regress`"):
        check_job("regress", toy_classes.job("classify"))


def test_usage_errors_have_their_code() -> None:
    done = command("regress")
    assert (done.returncode, done.stdout) == (ExitCode.BAD_JOB, "")


def test_an_unwritable_out_mount_is_said(toy_classes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("LARY_MOUNT_OUT", str(blocked))
    with pytest.raises(ContractError, match="cannot be written"):
        toy_classes.run(toy_classes.job("classify"))


@pytest.mark.parametrize("kind", ["absent", "folder", "fifo", "empty", "bytes", "deep", "list", "number"])
def test_a_job_file_of_any_kind_is_one_line_and_code_2(
    tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    from lary_schema.command import load_job, run_command
    from lary_schema.jobs import ProbeJob

    path, contents = tmp_path / "job.json", {"empty": b"", "bytes": b"\0\xff", "list": b"[]", "number": b"NaN"}
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "deep":
        path.write_text("[" * 100_000)
    elif kind != "absent":
        path.write_bytes(contents[kind])
    events: list[_Event] = []
    assert run_command(lambda: load_job(path, ProbeJob) and None, events.append) == ExitCode.BAD_JOB
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert str(path) in error
    assert len(events) == 1
