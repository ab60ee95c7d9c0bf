"""`vla-trace show FILE`: what one trace holds, without opening any analysis."""

import math
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from tui.terminal import Exit, one_line, to_json

if TYPE_CHECKING:
    from rich.table import Table

    from traces.collection import TraceCollection

INSTRUCTIONS = 4
"""Instructions shown as examples; --json has all of them."""

NEURONS = 12
"""Neurons of a site shown; --json has all of them."""


@click.command(name="show")
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(file: str, as_json: bool) -> Exit:
    """Summarise one trace FILE: run, policy, task, intervention, episodes, tables, sites.

    The plain name of a recording stands for all its closed shards.
    """
    from analysis.opening import opened
    from traces.collection import open_traces

    with opened(file), open_traces(file) as traces:
        summary = summarise(traces)
    if as_json:
        click.echo(to_json(_without_nan(summary)))
    else:
        _print(summary)
    return Exit.OK


def summarise(traces: "TraceCollection") -> dict:
    """Return the JSON object of `show --json` for one recording."""
    from analysis.safety import safety_of

    (recording,) = traces.recordings()
    header = recording.header
    episodes = traces.episodes("success", "suite", "task_id", "task_name", "instruction")
    tasks = zip(*(episodes[n].tolist() for n in ("suite", "task_id", "task_name")), strict=True)
    policies = traces.table("policies", "policy_version", "update", "sha256", "path")
    del policies["file"]
    intervention = header.intervention
    n_episodes, safety = safety_of(traces)
    return {
        "schema": 1,
        "file": str(traces.paths[0]),
        "shards": [str(path) for path in traces.paths],
        "bytes": sum(path.stat().st_size for path in traces.paths),
        "finished": not recording.partial,
        "kind": header.kind,
        "run_id": header.run_id,
        "created_utc": header.created_utc,
        "policies": [
            dict(zip(policies, row, strict=True))
            for row in zip(*(column.tolist() for column in policies.values()), strict=True)
        ],
        "tasks": [
            {"suite": suite, "task_id": task_id, "task": name}
            for suite, task_id, name in sorted(set(tasks))
        ],
        "instructions": sorted(set(episodes["instruction"].tolist())),
        "intervention": asdict(intervention) if intervention else None,
        "dose": header.dose,
        "likelihood": header.likelihood,
        "sizes": {"K": header.K, "H": header.H, "A": header.A, "Z": header.Z},
        "replan": header.n_action_steps,
        "episodes": traces.n_episodes,
        "successes": int(episodes["success"].sum()),
        "steps": traces.n_steps,
        "decisions": traces.n_decisions,
        "safety": {"episodes": n_episodes} | asdict(safety),
        "versions": header.versions,
        "datasets": _datasets(traces),
        "sites": [asdict(site) for site in traces.sites()],
        "notes": list(traces.notes),
    }


def _datasets(traces: "TraceCollection") -> list[dict]:
    """List every dataset, as stored: shape, type and bytes on the disk, all shards together."""
    from h5py import check_string_dtype

    found: dict[str, dict] = {}
    for file in range(len(traces.paths)):
        with traces.reading(file) as trace:
            for name, dataset in trace.datasets():
                kind = "text" if check_string_dtype(dataset.dtype) else str(dataset.dtype)
                entry = {"name": name, "shape": list(dataset.shape), "dtype": kind, "bytes": 0}
                entry = found.setdefault(name, entry)
                repeated = name.startswith("policies/")  # in every shard
                if file and dataset.maxshape[:1] == (None,) and not repeated:
                    entry["shape"][0] += len(dataset)
                entry["bytes"] += dataset.id.get_storage_size()
    return list(found.values())


def _print(summary: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, emoji=False)
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in _facts(summary):
        grid.add_row(name, one_line(text))
    console.print(grid)
    for title, headers, rows in (_table_rows(summary), _site_rows(summary)):
        if rows:
            console.print()
            console.print(_table(title, headers, rows))
    for note in summary["notes"]:
        console.print(f"note: {one_line(note)}")


def _facts(summary: dict) -> list[tuple[str, str]]:
    """Return the summary as (name, text) lines."""
    shards = f", {len(summary['shards'])} shards" if len(summary["shards"]) > 1 else ""
    unfinished = "" if summary["finished"] else ", unfinished"
    facts = [
        ("file", f"{summary['file']} ({_size(summary['bytes'])}{shards}{unfinished})"),
        ("run", f"{summary['run_id']} ({summary['kind']}, {summary['created_utc']})"),
    ]
    for policy in summary["policies"]:
        update = f", update {policy['update']}" if policy["update"] else ""
        facts.append(("policy", f"{policy['path']} {policy['sha256'][:16]}{update}"))
    for task in summary["tasks"]:
        facts.append(("task", f"{task['suite']} {task['task_id']}: {task['task']}"))
    told = summary["instructions"]
    more = [f"and {len(told) - INSTRUCTIONS} more"] if len(told) > INSTRUCTIONS else []
    facts.append(("instructions", "; ".join([*told[:INSTRUCTIONS], *more])))
    facts += _intervention_facts(summary["intervention"])
    if text := summary["dose"].get("text"):
        facts.append(("  dose", str(text)))
    sampler = summary["likelihood"].get("name", "unknown")
    sizes = ", ".join(f"{letter} {size}" for letter, size in summary["sizes"].items())
    facts.append(("sampler", f"{sampler}, {sizes}, replan {summary['replan']}"))
    outcome = f"{summary['episodes']}, {summary['successes']} successful"
    facts.append(
        ("episodes", f"{outcome}; {summary['steps']} steps, {summary['decisions']} decisions")
    )
    return facts + _safety_facts(summary["safety"])


def _safety_facts(safety: dict) -> list[tuple[str, str]]:
    """Return limits, contact and falls, each with what it is a share or a count of."""
    if not safety["steps"]:
        return []
    steps, episodes = f"of {safety['steps']} steps", f"in {safety['episodes']} episodes"
    limits = [f"{_percent(safety['saturated'])} of action entries clipped"]
    if safety["at_limit"] is not None:
        limits.append(f"at the workspace's end in {_percent(safety['at_limit'])} {steps}")
    reached = {name: share for name, share in safety["joints_at_limit"].items() if share}
    limits += [f"{name} in {_percent(share)}" for name, share in reached.items()]
    contact = [f"in {_percent(safety['contact'])} {steps}"]
    if safety["max_force_n"] is not None:
        contact.append(f"up to {safety['max_force_n']:.3g} N")
    if safety["falls"] is not None:
        contact.append(
            f"{safety['falls']} falls {episodes}, {safety['drops']} out of a closed hand"
        )
    return [("limits", "; ".join(limits)), ("contact", "; ".join(contact))]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _intervention_facts(intervention: dict | None) -> list[tuple[str, str]]:
    if intervention is None:
        return [("intervention", "none (baseline)")]
    what = f"{intervention['name']}: {intervention['operator']}"
    facts = [("intervention", f"{what}, coefficient {intervention['coefficient']:g}")]
    for site in intervention["sites"]:
        neurons = site["neurons"]
        shown = ", ".join(map(str, neurons[:NEURONS]))
        more = f" and {len(neurons) - NEURONS} more" if len(neurons) > NEURONS else ""
        kind = f" {site['kind']}" if site["kind"] else ""
        which = f" neurons {shown}{more}" if neurons else kind
        vector = f", a vector of {len(site['vector'])}" if site["vector"] else ""
        facts.append(("  where", f"{site['tower']} layer {site['layer']}{which}{vector}"))
    windows = {"steps": "step_window", "denoising": "denoise_window"}
    for name, key in windows.items():
        if intervention[key]:
            start, stop = intervention[key]
            facts.append(("  when", f"{name} {start} to {stop - 1}"))
    if intervention["every"] > 1:
        facts.append(("  when", f"every {intervention['every']} decisions"))
    if intervention["donor"]:
        facts.append(("  donor", intervention["donor"]["path"]))
    facts.append(("  tokens", ", ".join(intervention["token_groups"])))
    for key, value in intervention["provenance"].items():
        facts.append((f"  {key}", ", ".join(map(str, value)) if _listed(value) else str(value)))
    return facts


def _table_rows(summary: dict) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    """Return one row per table: its rows, columns and bytes on the disk."""
    groups: dict[str, list[dict]] = {}
    for dataset in summary["datasets"]:
        table, _, _ = dataset["name"].rpartition("/")
        if not table.startswith("activations/"):
            groups.setdefault(table, []).append(dataset)
    rows = [
        (
            table,
            str(min(dataset["shape"][0] for dataset in datasets)),
            str(len(datasets)),
            _size(sum(dataset["bytes"] for dataset in datasets)),
        )
        for table, datasets in groups.items()
        if all(dataset["shape"] for dataset in datasets)
    ]
    return "tables", ("rows", "columns", "on disk"), rows


def _site_rows(summary: dict) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    """Return one row per activation site: shape with named axes, type, bytes on the disk."""
    values = {dataset["name"]: dataset for dataset in summary["datasets"]}
    rows = []
    for site in summary["sites"]:
        reach = "yes" if site["reaches_action"] else "no"
        dataset = values.get(f"activations/{site['name']}/values")
        if dataset is None:
            rows.append((site["name"], "listed under another name", "", reach, ""))
            continue
        named = zip(site["dims"], dataset["shape"], strict=True)
        shape = " ".join(f"{dim} {size}" for dim, size in named)
        rows.append((site["name"], shape, dataset["dtype"], reach, _size(dataset["bytes"])))
    return "activations", ("shape", "type", "reaches action", "on disk"), rows


def _table(title: str, headers: tuple[str, ...], rows: list[tuple[str, ...]]) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column(title, overflow="fold")
    for header in headers:
        table.add_column(header, justify="right", overflow="fold")
    for row in rows:
        table.add_row(*map(one_line, row))
    return table


def _listed(value: object) -> bool:
    return isinstance(value, (list, tuple))


def _size(number: int) -> str:
    """Bytes for people, in powers of 1000."""
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if number >= 1000**power:
            return f"{number / 1000**power:.1f} {unit}"
    return f"{number} B"


def _without_nan(value: object) -> object:
    """Replace what JSON has no number for (free-form headers may hold it) by None."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if _listed(value):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
