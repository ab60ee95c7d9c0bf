"""`vla-trace survive FILES`: what fine-tuning left of an intervention's effect."""

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from traces.errors import UnwritableFolder, UserError
from tui.commands.tables_folder import write_folder
from tui.terminal import Exit, one_line, to_json, write_text

if TYPE_CHECKING:
    from analysis.survival import Survival

ABOUT = ("base", "policy", "suite", "task_id", "task", "label", "fingerprint")


@click.command(
    name="survive",
    help="""Does steering survive fine-tuning? FILES hold traces of both policies, steered and not.

    Pair by pair (same scene, same noise) the effect of an intervention in the base policy, its
    effect in the fine-tuned one, and the difference of the two, with 95 % intervals and sign-flip
    p. --plan writes the base's interventions into a folder and prints the commands that record the
    arms which the fine-tuned policy lacks:

    \b
      vla-trace record --steer slow --alpha 4 --out arms
      vla-trace survive arms --plan plan --policy CHECKPOINT > commands.sh
      sh commands.sh
      vla-trace survive arms traces
    """,
)
@click.argument("files", nargs=-1, required=True)
@click.option("--base", default="", metavar="NAME|FILE", help="Policy that others were tuned from.")
@click.option("--plan", metavar="FOLDER", help="Print the commands for the arms that lack.")
@click.option("--policy", default="", metavar="NAME", help="With --plan: the fine-tuned policy.")
@click.option("--out", metavar="FOLDER", help="Write the table there, as Parquet and CSV.")
@click.option("--force", is_flag=True, help="Replace an earlier FOLDER.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    files: tuple[str, ...],
    base: str,
    plan: str | None,
    policy: str,
    out: str | None,
    force: bool,
    as_json: bool,
) -> Exit:
    """Print the plan, or the table."""
    if policy and plan is None:
        raise UserError("--policy is the one to be recorded; add --plan FOLDER")
    if plan is not None:
        return _plan(files, base, Path(plan).expanduser(), policy, force)
    from analysis.survival import survival

    found = survival(files, base)
    if out is not None:
        write_folder(out, "survive", {"survival": found.frame}, found.notes, files, force)
    if as_json:
        facts = {"schema": 1, "base": found.base, "rows": found.frame.to_dicts()}
        missing = [f"{arm.policy}: {arm.arm}" for arm in found.missing]
        click.echo(to_json(facts | {"missing": missing, "notes": list(found.notes)}))
    elif found.frame.is_empty() and not found.missing:
        raise UserError(
            "no steered condition of a base and a fine-tuned policy in these files; what is "
            "missing is said by: vla-trace survive FILES --plan plan --policy CHECKPOINT"
        )
    else:
        _print(found)
    return Exit.OK


def _plan(files: tuple[str, ...], base: str, folder: Path, policy: str, force: bool) -> Exit:
    """Write interventions, print commands."""
    from analysis.lacking import lacking

    arms = lacking(files, policy, base)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnwritableFolder(folder, error.strerror or str(error)) from None
    wanted = [arm for arm in arms if arm.intervention is not None]
    for arm in wanted:
        path, text = arm.file(folder), arm.intervention.to_json() + "\n"
        if path.exists() and path.read_text(encoding="utf-8") != text and not force:
            raise UserError(f"{path} holds another intervention; choose another folder or --force")
    for arm in wanted:
        write_text(arm.file(folder), arm.intervention.to_json() + "\n")
    for arm in arms:
        click.echo(arm.command(folder))
    if not arms:
        click.echo("no arm lacks: vla-trace survive FILES", err=True)
    return Exit.OK


def _print(found: "Survival") -> None:
    from analysis.survival import MEASURES
    from tui.commands.strips import console, p_value, print_rows

    screen = console()
    for key, group in groupby(
        found.frame.to_dicts(), key=lambda row: tuple(row[name] for name in ABOUT)
    ):
        rows, about = list(group), dict(zip(ABOUT, key, strict=True))
        task = f"{about['suite']} task {about['task_id']} ({about['task']})"
        screen.print(
            one_line(f"{about['label']} on {task}: {about['base']} -> {about['policy']}"),
            style="bold",
        )
        headers = ("effect on", "n", "in the base", "in the tuned", "difference", "p, Holm")
        lines = [
            (
                MEASURES[row["measure"]],
                str(row["n"]),
                *(_estimate(row, name) for name in ("base_effect", "tuned_effect", "difference")),
                f"{p_value(row['p_value'])}\n{p_value(row['p_holm'])}",
            )
            for row in rows
        ]
        print_rows(screen, headers, _stacked(lines))
        for sentence in _sentences(rows[0]):
            screen.print(sentence)
        screen.print()
    for arm in found.missing:
        where = f"{arm.suite} task {arm.task_id}, replan {arm.replan}"
        screen.print(one_line(f"missing: {arm.arm} of {arm.policy} on {where}"))
    if found.missing:
        screen.print("the commands that record them: vla-trace survive FILES --plan plan")
    for note in found.notes:
        screen.print(f"note: {one_line(note)}")


def _stacked(lines: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Intervals on a line of their own, below their number."""
    rows = []
    for line in lines:
        parts = [cell.split("\n") for cell in line]
        rows += [
            tuple(cell[i] if i < len(cell) else "" for cell in parts)
            for i in range(max(map(len, parts)))
        ]
    return rows


def _estimate(row: dict, name: str) -> str:
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    if value is None:
        return "-"
    return f"{value:+.3f}" + ("" if low is None else f"\n[{low:+.3f}, {high:+.3f}]")


def _sentences(row: dict) -> list[str]:
    """What MEED says, in words."""
    said = []
    if row["kept"] is not None:
        share, low, high = (100 * row[f"kept{end}"] for end in ("", "_low", "_high"))
        said.append(
            f"the tuned policy shows {share:.0f} % [{low:.0f}, {high:.0f}] of the base's effect on "
            "MEED"
        )
    elif row["base_effect_low"] is not None:
        said.append("the base's own effect on MEED may be zero: there is nothing to survive")
    if row["excess"] is not None:
        low, high = row["excess_low"], row["excess_high"]
        interval = "" if low is None else f" [{low:+.3f}, {high:+.3f}]"
        clusters = "cluster" if row["n_random"] == 1 else "clusters"
        said.append(
            f"{row['excess']:+.3f}{interval} cm beyond the change of {row['n_random']} random "
            f"{clusters}"
        )
    if row["null_pairs"]:
        said.append(
            f"null control of the tuned policy: bit-equal in {row['null_equal']} of "
            f"{row['null_pairs']} episodes"
        )
    return said
