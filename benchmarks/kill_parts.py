"""What `kills.py` kills: by part, the commands, their inputs, what they leave, and the kinds of their processes."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow
import pyarrow.parquet
from common import run
from kill_evaluations import COMMAND, evaluate, evaluate_libero, evaluate_libero_blind, make_looks

REQUEST = ("-m", "frame-diff", "-m", "random-vit", "-d", "demo_motion", "--protocol", "smoke", "--shard-rows", "16")
ORCHESTRATOR, CONTAINER, SIMULATOR, POLICY, VIDEO = "orchestrator", "container", "simulator", "policy", "video"
KINDS = {
    # The first process of a container, which starts the command: killed like the container itself.
    "docker-init": CONTAINER,
    "lary_worker.child": "decode process",
    "spawn_main": "process of a data tool",
    "lary_worker extract": "worker",
    "lary_trainer.child": "decode process",
    "lary_trainer train": "training",
    "lary_policy evaluate": SIMULATOR,
    "lary_policy act": POLICY,
    "lary_policy video": VIDEO,
    "lary_libero evaluate": SIMULATOR,
    "lary_libero act": POLICY,
    "lary_libero video": VIDEO,
    "describe": "describe",
    "lary_data": "data tool",
    "lary_demo": "demo set",
    "lary_probe": "probe",
    "/uv ": "uv",
    "lary_orch": ORCHESTRATOR,
}
"""A part of a process's command line -> what it is."""
NO_RESULTS = ("lock", ".lock", ".answers", ".pyc", "/training.json", "/episodes.jsonl")
"""How files end that are no part of a result: locks, the tools' notes on what is done, and what says how often and how
long was trained; of that the measures are compared (`scores`). Episodes stand in their journal in the order in which
they ended; in the result they are sorted."""
EPISODES, FRAMES, FPS = 16, 40, 10
IMAGES = Path(__file__).parents[1] / "images"
RECIPE = IMAGES / "lara/recipes/moto-tiny.yaml"
STAGED = (
    "univla-lam-tiny-one",
    "univla-lam-tiny-two",
    "action-tokenizer-tiny",
    "latent-vla-tiny",
    "latent-vla-tiny-tok",
)
STUDY = """
key: stages
title: two stages of latent actions, a tokenizer of actions, and policies without and with its codes
data: {train: squares, labelled: {share: 1.0, seed: 0}}
seeds: [0]
stages:
  one: {recipe: univla-lam-tiny-one, with: {steps: LONG}}
  two: {recipe: univla-lam-tiny-two, init: one, labelled: true, with: {steps: LONG}}
  tokenizer: {recipe: action-tokenizer-tiny, labelled: true, with: {steps: LONG}}
  policy: {recipe: latent-vla-tiny, labelled: true, with: {steps: SHORT, chunk: 1}}
  coded: {recipe: latent-vla-tiny-tok, init: tokenizer, labelled: true, with: {steps: SHORT, chunk: 1}}
arms:
  one: {title: stage 1, of: one, probe: false}
  two: {title: stage 2, of: two, probe: false}
  policy: {title: a policy, of: policy, probe: false}
  coded: {title: a policy with codes, of: coded, probe: false}
"""
SQUARES = """
key: squares
title: a square that moves
task: regression
columns: {input: image}
metadata: squares/{split}.csv
media: squares/{split}
actions: {folder: "squares/{split}", stride: 1, dim: 1, names: [speed], normalisation: {kind: train}}
group: {column: episode}
instruction: text
license: MIT
source: benchmarks
"""


@dataclass(frozen=True)
class Part:
    """Commands that end with exit code 0 when they were run often enough, and leave the same files then."""

    commands: Callable[[Path, Path], list[list[str]]]
    """From the folder of the inputs and that of the outputs; they run one after the other."""
    results: tuple[str, ...]
    """Folders of the outputs whose files are compared byte for byte."""
    prepare: Callable[[Path], None] = lambda _: None
    """Make the inputs, unharmed."""
    containers: bool = False
    kinds: tuple[str, ...] = ()
    """What is killed, all of them alike often; empty: whatever lives."""


def kind_of(command: list[str]) -> str:
    """What a process is, or an empty string for one that is left alone."""
    line = " ".join(command)
    return next((kind for part, kind in KINDS.items() if part in line), "")


def files(root: Path, folders: tuple[str, ...]) -> dict[str, str]:
    """sha256 of every file below the folders; where a link leads to."""
    found = {}
    for path in (path for folder in folders for path in (root / folder).rglob("*")):
        if str(path).endswith(NO_RESULTS):
            continue
        if path.is_symlink():
            found[str(path.relative_to(root))] = str(path.readlink())
        elif path.is_file():
            found[str(path.relative_to(root))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def failed_rows(root: Path) -> int:
    """Of all stores below a folder."""
    markers = (json.loads(path.read_text(encoding="utf-8")) for path in root.rglob("*.zarr/done/*.json"))
    return sum(len(marker["failures"]) for marker in markers)


def scores(root: Path) -> dict[str, Any]:
    """By result (run, model, control): its values."""
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(root.rglob("result.json"))]
    return {
        f"{doc['run']}/{doc['model']}/{doc['control']}": {
            split: score["value"] for split, score in doc["splits"].items()
        }
        for doc in documents
    }


def _run(runtime: str, *options: str) -> Callable[[Path, Path], list[list[str]]]:
    def commands(_: Path, out: Path) -> list[list[str]]:
        return [[*COMMAND, "run", *REQUEST, "--runtime", runtime, *options, "--workspace", str(out)]]

    return commands


def _tools(inputs: Path, out: Path) -> list[list[str]]:
    data, latents = [*COMMAND, "data", "--env", "current"], [*COMMAND, "latents"]
    known = ("--env", "current", "--workspace", str(inputs / "bench"))
    two = ("--workers", "2")
    robot, clips, csv = str(inputs / "robot"), str(inputs / "clips"), str(inputs / "clips.csv")
    exported = (*known, "-m", "frame-diff", "-d", "demo_motion", "--to", str(out / "npz"), "--as", "mine")
    imported = (
        *known,
        "--latents",
        str(out / "latents"),
        "-m",
        "mine",
        "-d",
        "demo_motion",
        "--from",
        str(out / "npz"),
    )
    return [
        [*data, "manifest", "lerobot", robot, "--key", "robot", "--stride", "2", "--out", str(out / "robot"), *two],
        [*data, "manifest", "folder", clips, "--key", "clips", "--out", str(out / "clips"), *two],
        [*data, "sample-frames", csv, "--media", clips, "--out", str(out / "sampled/sampled.csv"), *two],
        [*latents, "export", *exported, *two],
        [*latents, "import", *imported, *two],
    ]


def _make_inputs(inputs: Path) -> None:
    robot = inputs / "robot"
    (robot / "meta").mkdir(parents=True)
    features = {"action": {"dtype": "float32", "shape": [2]}, "top": {"dtype": "video", "shape": [48, 64, 3]}}
    info = {
        "codebase_version": "v2.1", "robot_type": "arm", "fps": FPS, "features": features,
        "total_episodes": EPISODES, "total_frames": EPISODES * FRAMES,
        "data_path": "data/{episode_index}.parquet", "video_path": "videos/{video_key}/{episode_index}.mp4",
    }  # fmt: skip
    (robot / "meta/info.json").write_text(json.dumps(info), encoding="utf-8")
    rows = [{"episode_index": episode, "tasks": ["push"], "length": FRAMES} for episode in range(EPISODES)]
    (robot / "meta/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for episode in range(EPISODES):
        _write_table(robot / f"data/{episode}.parquet", episode)
        _write_video(robot / f"videos/top/{episode}.mp4", episode)
        _write_video(inputs / f"clips/class{episode % 2}/{episode}.mp4", episode)
    names = (path.relative_to(inputs / "clips") for path in sorted((inputs / "clips").rglob("*.mp4")))
    (inputs / "clips.csv").write_text("video_path\n" + "".join(f"{name}\n" for name in names), encoding="utf-8")
    bench = ["--runtime", "process", "--env", "current", "--workspace", str(inputs / "bench")]
    request = ["-m", "frame-diff", "-d", "demo_motion", "--protocol", "smoke"]
    run([*COMMAND, "run", *request, *bench], check=True, capture_output=True)


def _write_table(path: Path, episode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table({
        "action": pyarrow.array([[episode, step] for step in range(FRAMES)], pyarrow.list_(pyarrow.float32())),
        "timestamp": pyarrow.array([step / FPS for step in range(FRAMES)], pyarrow.float32()),
        "frame_index": list(range(FRAMES)),
        "episode_index": [episode] * FRAMES,
    }), path)  # fmt: skip


def _write_video(path: Path, episode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for picture in _pictures(episode):
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _pictures(episode: int) -> Iterator[av.VideoFrame]:
    y, x = np.mgrid[:48, :64]
    for step in range(FRAMES):
        shades = np.stack([x * 3 + 5 * step, y * 4 + 2 * step, np.full_like(x, 6 * step + 9 * episode)], -1)
        frame = av.VideoFrame.from_ndarray(shades.astype(np.uint8), format="rgb24")
        frame.pts, frame.time_base = step, Fraction(1, FPS)
        yield frame


def _environments(_: Path, out: Path) -> list[list[str]]:
    plan = ["plan", "-m", "pixels", "-d", "demo_motion", "--protocol", "smoke", "--runtime", "process", "--env", "own"]
    return [
        [*COMMAND, "data", "--workspace", str(out), "describe"],
        [*COMMAND, *plan, "--workspace", str(out)],
    ]


def _train(runtime: str, *options: str) -> Callable[[Path, Path], list[list[str]]]:
    def commands(inputs: Path, out: Path) -> list[list[str]]:
        data = ["-d", "squares", "--catalog", str(inputs), "--data-dir", str(inputs)]
        often = ["--set", "steps=400", "--save-every", "25", "--evaluate-every", "50", "--workers", "2"]
        runs = ["--runtime", runtime, *options, "--workspace", str(out)]
        return [[*COMMAND, "train", "-r", str(RECIPE), *data, *often, *runs]]

    return commands


def _make_pairs(inputs: Path) -> None:
    """PNG pairs of a square that moves over noise, in a set of their own."""
    for split, rows in (("train", 48), ("val", 16)):
        (inputs / "squares" / split).mkdir(parents=True)
        lines = ["src_img,tgt_img,action,episode,text"]
        for row in range(rows):
            rng = np.random.default_rng([rows, row])
            frame = cv2.resize(rng.integers(0, 128, (6, 6, 3), np.uint8), (48, 48))
            for at in range(2):
                left = 4 + row % 16 + at * (row % 7)
                moved = frame.copy()
                moved[16:28, left : left + 12] = 255
                cv2.imwrite(str(inputs / f"squares/{split}/{row}-{at}.png"), moved)
            np.save(inputs / f"squares/{split}/{row}.npy", np.full((1, 1), row % 7, np.float32))
            lines.append(f"{row}-0.png,{row}-1.png,{row}.npy,{split}{row // 4},push {'far' if row % 7 > 3 else 'near'}")
        (inputs / f"squares/{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (inputs / "squares.yaml").write_text(SQUARES, encoding="utf-8")


def _make_stages(inputs: Path, steps: int = 120) -> None:
    """`steps` of the codes' trainings; half as many of policies."""
    _make_pairs(inputs)
    for folder in ("recipes", "studies"):
        (inputs / folder).mkdir()
    for name in STAGED:
        shutil.copy(IMAGES / f"latentvla/recipes/{name}.yaml", inputs / "recipes")
    study = STUDY.replace("LONG", str(steps)).replace("SHORT", str(steps // 2))
    (inputs / "studies/stages.yaml").write_text(study, encoding="utf-8")


def _make_short_stages(inputs: Path) -> None:
    _make_stages(inputs, 40)


def _study(runtime: str, *options: str) -> Callable[[Path, Path], list[list[str]]]:
    def commands(inputs: Path, out: Path) -> list[list[str]]:
        data = ["--catalog", str(inputs), "--data-dir", str(inputs)]
        often = ["--save-every", "10", "--evaluate-every", "50", "--workers", "2", "--cpu-slots", "2"]
        runs = ["--runtime", runtime, *options, "--workspace", str(out)]
        return [[*COMMAND, "study", "stages", *data, *often, *runs]]

    return commands


ACTING = (ORCHESTRATOR, SIMULATOR, POLICY, VIDEO)
PARTS = {
    "processes": Part(_run("process", "--env", "current"), ("latents",)),
    "containers": Part(_run("docker"), ("latents",), containers=True),
    "tools": Part(_tools, ("robot", "clips", "sampled", "npz", "latents"), _make_inputs),
    "training": Part(_train("process", "--env", "current"), ("trained",), _make_pairs),
    "training-stages": Part(_study("process", "--env", "current"), ("trained",), _make_stages),
    "training-stages-containers": Part(_study("docker"), ("trained",), _make_short_stages, containers=True),
    "training-containers": Part(_train("docker"), ("trained",), _make_pairs, containers=True),
    "evaluations": Part(evaluate("process", "--env", "current"), ("results",), kinds=ACTING),
    "evaluations-libero": Part(evaluate_libero("process", "--env", "current"), ("results",), make_looks, kinds=ACTING),
    "evaluation-containers": Part(evaluate("docker"), ("results",), containers=True, kinds=(*ACTING, CONTAINER)),
    "evaluation-libero-containers": Part(
        evaluate_libero_blind, ("results",), containers=True, kinds=(*ACTING, CONTAINER)
    ),
    "environments": Part(_environments, ("envs", "generated")),
}
"""`containers` needs an engine and the built images `base`, `baseline` and `probe`, `training-containers` `base` and
`lara`, `training-stages-containers` `base` and `latentvla`, `evaluation-containers` `base` and `arm`,
`evaluation-libero-containers` `base` and `libero`.
`evaluations-libero` needs an interpreter that has LIBERO, `environments` packages from uv's cache, or else from the
registry."""
