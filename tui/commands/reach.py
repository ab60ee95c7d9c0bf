"""`vla-trace reach POLICY`: which feed-forward block can change the action, and how much."""

from typing import TYPE_CHECKING

import click

from traces.errors import UserError
from tui.terminal import Exit, one_line, to_json

if TYPE_CHECKING:
    from engine.reach import Reach

MOST = 8  # observations of one policy call


@click.command(name="reach")
@click.argument("policy", default="smolvla-tabletop")
@click.option("--suite", default="tabletop", show_default=True)
@click.option("--task", default="0", show_default=True, help="Task, by number or name.")
@click.option("--observations", type=int, default=MOST, show_default=True, help="Scenes to try.")
@click.option("--seed", type=int, default=0, show_default=True, help="First scene seed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    policy: str, suite: str, task: str, observations: int, seed: int, as_json: bool
) -> Exit:
    """Say, for every feed-forward block of POLICY, whether it can change the action.

    By structure: whether anything that leads to the action reads what it writes. By trial: its
    activations are made a tenth larger at the first observations of some scenes, with the same
    noise. The change of the action is given per unit of relative change. Exit code 1 when
    structure and trial disagree.
    """
    if not 1 <= observations <= MOST:
        raise UserError(f"--observations {observations}: expected 1 to {MOST}")
    if seed < 0:
        raise UserError(f"--seed {seed}: expected 0 or larger")
    from engine.envs import load_suite
    from engine.policies.smolvla import load_policy
    from engine.reach import EPSILON, first_observations, reach

    task_id = load_suite(suite).task_id_of(task)
    click.echo(f"loading {one_line(policy)} ...", err=True)
    loaded = load_policy(policy)
    found = reach(loaded, first_observations(suite, task_id, observations, seed))
    wrong = [site for site in found if not site.agrees]
    if as_json:
        click.echo(
            to_json(
                {
                    "schema": 1,
                    "policy": loaded.name,
                    "sha256": loaded.sha256,
                    "suite": suite,
                    "task_id": task_id,
                    "observations": observations,
                    "epsilon": EPSILON,
                    "sites": [site.to_dict() for site in found],
                }
            )
        )
    else:
        _print(found)
    for site in wrong:
        click.echo(f"error: {_disagreement(site)}", err=True)
    return Exit.FAILURE if wrong else Exit.OK


def _disagreement(site: "Reach") -> str:
    if site.trial:
        return f"{site.site} moves the action although nothing seems to read it; the map is wrong"
    return f"{site.site} should reach the action, and changed no bit of it"


def _print(found: "list[Reach]") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, emoji=False)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("site")
    table.add_column("by structure")
    table.add_column("by trial")
    for header in ("max |da|", "rms |da|"):
        table.add_column(header, justify="right")
    for site in found:
        table.add_row(
            site.site,
            "reaches" if site.structure else "read by nothing",
            "moves" if site.trial else "no bit changed",
            f"{site.max_change:.3g}",
            f"{site.rms_change:.3g}",
        )
    console.print(table)
