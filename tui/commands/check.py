"""`vla-trace check FILES`: whether traces keep what the format promises."""

from collections import Counter
from typing import TYPE_CHECKING

import click

from tui.terminal import Exit, one_line, to_json

if TYPE_CHECKING:
    from pathlib import Path

    from traces.structure import Finding


@click.command(name="check")
@click.argument("files", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(files: tuple[str, ...], as_json: bool) -> Exit:
    """Check FILES from end to end: traces, folders or "quoted/*.h5" patterns.

    Structure, units, values, indices, statistics and checksums; unfinished files too, as far as
    their complete episodes go. One line a finding. Exit code 1 when a file has errors; warnings
    and notes are said only.
    """
    from traces.catalog import find_traces
    from traces.check import check

    found = {path: check(path) for path in find_traces(files, partial=True)}
    if as_json:
        click.echo(to_json({"schema": 1, "files": [_json(p, f) for p, f in found.items()]}))
    else:
        for path, findings in found.items():
            _print(path, findings)
    broken = [path for path, findings in found.items() if _count(findings)["error"]]
    for path in broken:
        click.echo(f"save what is whole: vla-trace repair {one_line(path)}", err=True)
    return Exit.FAILURE if broken else Exit.OK


def _json(path: "Path", findings: "list[Finding]") -> dict:
    count = _count(findings)
    return {
        "file": str(path),
        "ok": not count["error"],
        "errors": count["error"],
        "warnings": count["warning"],
        "notes": count["note"],
        "findings": [
            {"level": f.level, "place": one_line(f.place), "what": one_line(f.what)}
            for f in findings
        ],
    }


def _print(path: "Path", findings: "list[Finding]") -> None:
    """One line a finding, and one line that sums up."""
    name = one_line(path)
    for finding in findings:
        click.echo(f"{name}: {finding.level}: {one_line(finding.place)}: {one_line(finding.what)}")
    count = _count(findings)
    counts = [f"{n} {level}{'' if n == 1 else 's'}" for level, n in count.items()]
    click.echo(f"{name}: {', '.join(['damaged' if count['error'] else 'ok', *counts])}")


def _count(findings: "list[Finding]") -> Counter:
    return Counter(finding.level for finding in findings)
