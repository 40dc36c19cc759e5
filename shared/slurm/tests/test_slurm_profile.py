"""The profile of a cluster: what it becomes, and what is refused."""

import json
from pathlib import Path

import pytest
from lary_schema.base import ContractError
from lary_slurm.profile import OURS, PROFILE_VARIABLE, Profile, load_profile


def _load(folder: Path, text: str) -> Profile:
    path = folder / "profile.yaml"
    path.write_text(text)
    return load_profile(path)


def test_options_in_a_fixed_order_and_probes_over_them(tmp_path: Path) -> None:
    profile = _load(
        tmp_path,
        """
        partition: gpu
        account: lab
        qos: low
        time: 1-12:00:00
        cpus: 8
        memory: 32G
        gpus: 1
        constraint: a100|h100
        sbatch: [--reservation=lab, "--mail-type=FAIL"]
        probe: {time: "30", gres: "gpu:2", nodes: 2}
        """,
    )
    assert profile.options() == (
        *("--partition=gpu", "--account=lab", "--qos=low", "--time=1-12:00:00", "--nodes=1", "--ntasks-per-node=1"),
        *("--cpus-per-task=8", "--mem=32G", "--gpus-per-node=1", "--constraint=a100|h100"),
        *("--reservation=lab", "--mail-type=FAIL"),
    )
    probes = profile.for_probes
    assert (probes.time, probes.nodes, probes.gpus, probes.gres, probes.memory) == ("30", 2, None, "gpu:2", "32G")
    assert profile.has_gpu
    assert probes.has_gpu
    assert not Profile(gres="license:1").has_gpu


def test_nothing_requested_is_a_profile(tmp_path: Path) -> None:
    assert _load(tmp_path, "") == Profile() == load_profile(None, {})
    assert Profile().options() == ("--nodes=1", "--ntasks-per-node=1")
    (tmp_path / "profile.yaml").write_text("partition: debug")
    assert load_profile(None, {PROFILE_VARIABLE: str(tmp_path / "profile.yaml")}).partition == "debug"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("partitoin: gpu", "partitoin: Extra inputs"),
        ("time: soon", "'soon' is not of the form MINUTES, HH:MM:SS"),
        ("memory: 32 GB", "'32 GB' is not of the form 2000M or 16G"),
        ("partition: 'gpu\\n#SBATCH --uid=0'", "without spaces"),
        ("cpus: 0", "greater than or equal to 1"),
        ("{gpus: 1, gres: 'gpu:1'}", "leave one of them out"),
        ("sbatch: [--output=x]", "--output is given by the runtime itself"),
        ("sbatch: [--array 0-9]", "--array is given by the runtime itself"),
        ("sbatch: [-p gpu]", "write a long option"),
        ('sbatch: ["--mail-type=ALL\\nrm -rf x"]', "write a long option"),
        ('sbatch: ["--out=x"]', "--out is given by the runtime itself"),
        ('sbatch: ["--reservation=lab --array=0-9"]', "as one word"),
        ('setup: ["echo \'open"]', "setup: Value error, no whole lines of bash"),
        ("launcher: podman", "needs `images`"),
        ("launcher: docker", "Input should be 'process', 'podman', 'apptainer' or 'pyxis'"),
        ("nodes: 2", "`nodes` belongs under `probe`"),
        ("{launcher: pyxis, images: /i, probe: {nodes: 2}}", "not made for launcher pyxis"),
        ("poll_s: 1", "greater than or equal to 10"),
        ("[1, 2]", "valid dictionary"),
        ("a: [", "not YAML"),
    ],
)
def test_what_is_no_profile_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ContractError) as raised:
        _load(tmp_path, text)
    assert says in str(raised.value)
    assert "profile.yaml" in str(raised.value)


NASTY = [
    "a b",
    "a\tb",
    "a'b",
    'a"b',
    "a\\",
    "$(touch x)",
    "`touch x`",
    "$HOME",
    "a;b",
    "a\nb",
    "a\r",
    "a#b",
    "a<b",
    "~",
]


@pytest.mark.parametrize("value", NASTY)
@pytest.mark.parametrize("key", ["partition", "account", "qos", "time", "memory", "gres", "constraint", "modules"])
def test_a_value_that_is_no_word_is_refused_by_its_key(tmp_path: Path, key: str, value: str) -> None:
    (tmp_path / "profile.yaml").write_text(json.dumps({key: [value] if key == "modules" else value}))
    with pytest.raises(ContractError, match=rf"(?s)profile.yaml.*{key}"):
        load_profile(tmp_path / "profile.yaml")


@pytest.mark.parametrize("value", NASTY)
@pytest.mark.parametrize("where", [{}, {"probe": None}])
def test_an_option_of_sbatch_is_one_word(tmp_path: Path, value: str, where: dict[str, None]) -> None:
    asked = {"sbatch": ["--exclusive", f"--reservation={value}"]}
    (tmp_path / "profile.yaml").write_text(json.dumps(dict.fromkeys(where, asked) or asked))
    with pytest.raises(ContractError, match=r"(?s)profile.yaml.*sbatch.1"):
        load_profile(tmp_path / "profile.yaml")


@pytest.mark.parametrize("name", OURS)
def test_no_beginning_of_a_name_gets_round_the_runtimes_own(name: str) -> None:
    for length in range(1, len(name) + 1):
        with pytest.raises(ValueError, match="leave it out"):
            Profile(sbatch=(f"--{name[:length]}=x",))


@pytest.mark.parametrize(
    "line", ["if true; then", "echo 'a", 'echo "a', "cat <<END", "echo $(true", "echo a \\", "}", "(", "done"]
)
def test_setup_ends_what_it_begins(line: str) -> None:
    with pytest.raises(ValueError, match="no whole lines of bash"):
        Profile(setup=("true", line))


@pytest.mark.parametrize(
    "lines", [("if true; then", "  :", "fi"), ("# nothing",), ("",), ("cat <<END\na\nEND",), ("f() { :; }",)]
)
def test_setup_may_be_several_lines(lines: tuple[str, ...]) -> None:
    assert Profile(setup=lines).setup == lines


def test_a_profile_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="cannot be read: No such file"):
        load_profile(tmp_path / "none.yaml")
