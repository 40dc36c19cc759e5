"""`tasks`: what there is to do."""

import click


@click.command()
@click.argument("suite", required=False)
def command(suite: str | None) -> None:
    """List suites and tasks.

    Of SUITE: number, instruction, and how many initial states are stored.
    """
    from lary_libero.suites import find_task, suites, tasks_of

    if suite is None:
        for name in suites():
            click.echo(f"{name}\t{tasks_of(name)} tasks")
        return
    for number in range(tasks_of(suite)):
        task = find_task(suite, number)
        click.echo(f"{number}\t{task.instruction}\t{len(task.states)} states")
