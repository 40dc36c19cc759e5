"""The profile of a cluster: what it becomes, and what is refused."""

from pathlib import Path

import pytest
from lary_schema.base import ContractError
from lary_slurm.profile import PROFILE_VARIABLE, Profile, load_profile


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


def test_nothing_asked_for_is_a_profile(tmp_path: Path) -> None:
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


def test_a_profile_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="cannot be read: No such file"):
        load_profile(tmp_path / "none.yaml")
