"""`selftest`: whether the simulator runs here."""

import click
from lary_schema.base import ContractError


@click.command()
@click.option("--suite", default="libero_object", show_default=True)
@click.option("--task", default=0, show_default=True)
@click.option("--size", default=64, show_default=True, help="Pixels of a picture's side.")
def command(suite: str, task: int, size: int) -> None:
    """Make a task, draw it, and do the same episode twice."""
    import os

    from lary_libero.simulator import Simulator

    simulator = Simulator.make(suite, task, size=size)
    try:
        first, second, other = (_episode(simulator, state) for state in (0, 0, 1))
    finally:
        simulator.close()
    if first != second or first == other:
        raise ContractError("an episode is not a function of its initial state: do not use this installation")
    click.echo(f"{suite} task {task}: {simulator.instruction}; drawn by {os.environ['MUJOCO_GL']}; repeats bit for bit")


def _episode(simulator: object, state: int) -> bytes:
    import hashlib

    from lary_libero.simulator import ACTION_DIM, Simulator

    assert isinstance(simulator, Simulator)
    seen = hashlib.sha256()
    observation = simulator.reset(state)
    for number in range(5):
        for image in observation.images.values():
            seen.update(image.tobytes())
        seen.update(observation.state.tobytes())
        observation, _ = simulator.step([0.1 * number] * ACTION_DIM)
    return seen.digest()
