"""`vla-trace cluster CONCEPT`: choose the neurons to steer, look at them, save them."""

import re
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from traces.errors import UserError
from tui.commands.neurons import about, by_chance, lexicons_with, open_table, print_table, spoken
from tui.terminal import Exit, free_path, one_line, to_json, write_text

if TYPE_CHECKING:
    import polars as pl

    from analysis.clusters import Place
    from analysis.lexicons import Lexicons
    from traces.intervention import Intervention


@click.command(
    name="cluster",
    help="""Choose the neurons that speak of CONCEPT, print them, save them as an intervention.

    The source has the most words of the concept, less those of its opposite, among its top tokens;
    its nearest neighbours in meaning join it. --size counts all of them, the source included.

    \b
      vla-trace cluster fast                                  best layer, 10 neurons
      vla-trace cluster fast --layer 3 --size 20 -o fast.json
      vla-trace cluster fast --across --reject 3:144          every layer that acts, but not this
      vla-trace cluster --neuron 2:353 --export fast.yaml     the neighbours of one neuron
      vla-trace cluster --import dictionaries.yaml --name up_10 -o up.json
    """,
)
@click.option("--layer", type=int, help="Layer of the source; default: the earliest of the best.")
@click.option("--size", type=int, default=10, show_default=True, help="Neurons, source included.")
@click.option("--across", is_flag=True, help="Neurons of all layers that act may join.")
@click.option("--by", default="neighbours", show_default=True, help="neighbours, or next by score.")
@click.option("--neuron", metavar="L:N", help="Take this neuron as the source.")
@click.option("--accept", multiple=True, metavar="L:N", help="In the cluster; L:N,L:N for more.")
@click.option("--reject", multiple=True, metavar="L:N", help="Not in it; L:N,L:N for more.")
@click.option("--against", metavar="NAME", help="What counts against it; default: its opposite.")
@click.option("--lexicon", metavar="FILE", help="Concepts of yours; YAML, TOML or JSON.")
@click.option("--alpha", type=float, default=8.0, show_default=True, help="Dose of the overwrite.")
@click.option("--import", "source_file", metavar="FILE", help="Read it from Haon-style YAML.")
@click.option("--name", default="", help="Which cluster of FILE; otherwise what to call it.")
@click.option("-o", "--out", metavar="FILE", help="Save as an intervention, JSON.")
@click.option("--export", metavar="FILE", help="Save as Haon-style YAML.")
@click.option("--force", is_flag=True, help="Overwrite these files.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--policy", default="smolvla-tabletop", show_default=True, help="Name or folder.")
@click.option("--token-norm", default="l2", show_default=True, help="In embeddings: l2 or none.")
@click.option("--fold-norm", is_flag=True, help="Fold the final norm into the unembedding.")
@click.argument("concept", default="")
def command(
    concept: str,
    source_file: str | None,
    name: str,
    out: str | None,
    export: str | None,
    force: bool,
    as_json: bool,
    policy: str,
    token_norm: str,
    fold_norm: bool,
    lexicon: str | None,
    **wishes: object,
) -> Exit:
    """Compose the rooms: engine makes the table, analysis chooses."""
    if source_file and (concept or wishes["neuron"]):
        raise UserError("--import takes a cluster as it is; leave CONCEPT and --neuron out")
    saved = free_path(out, force) if out else None
    exported = free_path(export, force) if export else None
    lexicons = lexicons_with(lexicon)

    from analysis.clusters import members
    from analysis.dictionaries import written

    table = open_table(policy, token_norm, fold_norm)
    rows, facts = table.rows.collect(), table.facts
    if source_file:
        cluster, notes = _imported(rows, facts, source_file, name, wishes["alpha"])
    else:
        cluster, notes = _chosen(rows, facts, concept, lexicons, **wishes)
        cluster = replace(cluster, name=name or cluster.name)
    how = {key: facts[key] for key in ("token_norm", "fold_norm")}
    cluster = replace(cluster, provenance=cluster.provenance | how)
    found = members(rows, cluster, concept, lexicons, wishes["against"])
    notes = [*about(facts), *notes]
    for note in notes:
        click.echo(one_line(note), err=True)
    if as_json:
        click.echo(to_json(_json(cluster, found, facts, notes)))
    else:
        _print(found, concept)
    if saved:
        write_text(saved, cluster.to_json() + "\n")
    if exported:
        write_text(exported, written(rows, cluster))
    for path in filter(None, (saved, exported)):
        click.echo(f"saved {one_line(path)}", err=True)
    return Exit.OK


def _chosen(
    rows: "pl.DataFrame",
    facts: dict,
    concept: str,
    lexicons: "Lexicons",
    *,
    neuron: str | None,
    accept: tuple[str, ...],
    reject: tuple[str, ...],
    by: str,
    across: bool,
    against: str | None,
    layer: int | None,
    **size_and_alpha: object,
) -> "tuple[Intervention, list[str]]":
    """The cluster that was asked for, and what to say of it."""
    from analysis.clusters import Choice, choose_cluster

    source = _places("--neuron", (neuron,) if neuron else ())
    if len(source) > 1:
        raise UserError(f"--neuron {one_line(neuron)!r}: one neuron is the source; add --accept")
    if source and layer not in (None, source[0][0]):
        raise UserError(f"--neuron {one_line(neuron)} is not in --layer {layer}; leave one out")
    choice = Choice(
        source=source[0] if source else None,
        by=by,
        across=across,
        accept=_places("--accept", accept),
        reject=_places("--reject", reject),
        lexicons=lexicons,
        against=against,
    )
    cluster = choose_cluster(
        rows,
        concept,
        checkpoint_sha256=facts["sha256"],
        layer=layer,
        choice=choice,
        **size_and_alpha,
    )
    known = cluster.provenance
    counted = f"{known['size']} steered neurons, the source {known['neurons'][0]} included"
    if not concept:
        return cluster, [counted]
    return cluster, [by_chance(rows.filter("reach"), facts, concept, lexicons, against), counted]


def _imported(
    rows: "pl.DataFrame", facts: dict, file: str, name: str, alpha: float
) -> "tuple[Intervention, list[str]]":
    """A cluster of a YAML file, and what does not fit this policy."""
    from analysis.clusters import places_of
    from analysis.dictionaries import read_cluster, strangers

    cluster = read_cluster(file, name, rows, alpha=alpha, checkpoint_sha256=facts["sha256"])
    notes = [f"{cluster.neuron_count} neurons of '{cluster.name}'"]
    if foreign := strangers(rows, file, cluster):
        notes.append(
            f"{foreign} of them share no token with what the file says: made for another model?"
        )
    live = set(rows.filter("reach")["layer"].to_list())
    if dead := [layer for layer, _ in places_of(cluster) if layer not in live]:
        notes.append(f"{len(dead)} of them, in layer {max(dead)}, cannot change the action")
    return cluster, notes


def _places(option: str, texts: tuple[str, ...]) -> "tuple[Place, ...]":
    """The neurons that "3:126,4:7" names, each once."""
    places = {}
    for text in ",".join(texts).split(",") if texts else ():
        match = re.fullmatch(r"\s*(\d{1,4}):(\d{1,6})\s*", text, re.ASCII)
        if not match:
            raise UserError(f"{option} {one_line(text)!r}: expected LAYER:NEURON, such as 3:126")
        places[int(match[1]), int(match[2])] = None
    return tuple(places)


def _json(
    cluster: "Intervention", found: "pl.DataFrame", facts: dict, notes: list[str]
) -> dict[str, object]:
    return {
        "schema": 1,
        "policy": facts["policy"],
        "sha256": facts["sha256"],
        "notes": [one_line(note) for note in notes],
        "intervention": asdict(cluster),
        "members": found.to_dicts(),
    }


def _print(found: "pl.DataFrame", concept: str) -> None:
    columns = [("neuron", [f"{layer}:{n}" for layer, n in found.select("layer", "neuron").rows()])]
    if concept:
        words = [
            " ".join(one_line(token) for token in row) for row in found["hit_tokens"].to_list()
        ]
        columns += [
            ("hits", [str(hits) for hits in found["hits"]]),
            ("against", [str(hits) for hits in found["opposite_hits"]]),
            ("hit words", [text if len(text) <= 40 else text[:39] + "…" for text in words]),
        ]
    else:
        columns.append(("speaks of", spoken(found)))
    columns.append(("distance", [f"{distance:.3f}" for distance in found["distance"]]))
    print_table(columns, found["top_tokens"].to_list())
