"""`vla-trace neurons [POLICY]`: what the neurons of a policy spell, and how they fire."""

import json
import math
import re
import sys
from typing import TYPE_CHECKING

import click

from traces.errors import UnwritableFolder, UserError
from tui.terminal import Exit, free_path, one_line, to_json

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from analysis.lexicons import Lexicons
    from analysis.neurons import Query
    from engine.neuron_cache import NeuronTable

SHOWN = 20
"""Rows on a terminal unless --top says otherwise; machines get all."""

UNIFORM = 0.99
"""Share of the largest possible entropy from which weights count as all the same."""

QUALIFYING = 4
"""Score from which a neuron may be the source of a cluster."""


@click.command(
    name="neurons",
    help="""Read the neurons of POLICY in words: the tokens that each value vector promotes.

    \b
      vla-trace neurons                                those that speak most of a concept
      vla-trace neurons --concept fast --layers 0-3    by hits of fast minus hits of slow
      vla-trace neurons --search red                   those that promote the word red
      vla-trace neurons --traces "traces/*.h5"         how they fire, and with which speed

    POLICY is a name or a folder, by default smolvla-tabletop. Its table is made once and kept.
    """,
)
@click.option("--layers", metavar="0-3", default="", help="Layers, such as 0-3 or 0,2.")
@click.option("--concept", metavar="NAME", default="", help="Score for fast, slow, up, ...")
@click.option("--against", metavar="NAME", help="What counts against it; default: its opposite.")
@click.option("--lexicon", metavar="FILE", help="Concepts of yours; YAML, TOML or JSON.")
@click.option("--search", "word", metavar="WORD", default="", help="With this top token only.")
@click.option("--traces", multiple=True, metavar="FILES", help="Add how they fired there.")
@click.option("--sort", metavar="COLUMN", default="", help="Largest first; -COLUMN: smallest.")
@click.option("--top", type=click.IntRange(min=1), help=f"Rows; {SHOWN} on a terminal, else all.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, lists as JSON.")
@click.option("--parquet", metavar="OUT", help="Write Parquet, with embeddings.")
@click.option("--force", is_flag=True, help="Overwrite OUT.")
@click.option("--tower", default="vlm", show_default=True, help="Only the vlm's spell tokens.")
@click.option("--token-norm", default="l2", show_default=True, help="In embeddings: l2 or none.")
@click.option("--fold-norm", is_flag=True, help="Fold the final norm into the unembedding.")
@click.argument("words", nargs=-1, metavar="[POLICY]")
def command(
    words: tuple[str, ...],
    layers: str,
    lexicon: str | None,
    traces: tuple[str, ...],
    top: int | None,
    as_json: bool,
    as_csv: bool,
    parquet: str | None,
    force: bool,
    tower: str,
    token_norm: str,
    fold_norm: bool,
    **asked: object,
) -> Exit:
    """Compose the rooms: engine makes the table, analysis asks it."""
    policy, traces = _policy_and_traces(words, traces)
    if as_json and as_csv:
        raise UserError("--json and --csv both print on stdout; choose one")
    machine = bool(as_json or as_csv or parquet)
    out = free_path(parquet, force) if parquet else None

    from analysis.neurons import Query, answer

    query = Query(
        layers=_layers(layers),
        top=top or (None if machine else SHOWN),
        lexicons=lexicons_with(lexicon),
        **asked,
    )
    table = open_table(policy, token_norm, fold_norm, tower)
    rows = table.rows.collect() if out else table.rows.drop("embedding").collect()
    fired, notes = _fired(rows, query, traces, table.facts["sha256"])
    found = answer(rows, query, fired)
    notes = [*about(table.facts), *notes, *_about_answer(rows, found, query, table.facts)]
    for note in notes:
        click.echo(one_line(note), err=True)
    if out:
        _write_parquet(found, out)
        click.echo(str(out))
    elif as_json:
        click.echo(to_json(_json(found, table.facts, notes)))
    elif as_csv:
        click.echo(_csv(found), nl=False)
    else:
        _print(found, query)
    return Exit.OK


def open_table(
    policy: str, token_norm: str = "l2", fold_norm: bool = False, tower: str = "vlm"
) -> "NeuronTable":
    """The neuron table of a policy; torch is imported only if it was never made."""
    from engine.neuron_cache import Variant, cached
    from engine.policies.folder import policy_folder, weights_sha256

    if tower not in ("vlm", "expert"):
        raise UserError(f"--tower {one_line(tower)!r}: expected vlm")
    variant = Variant(token_norm, fold_norm)
    sha256 = weights_sha256(policy_folder(policy))
    found = cached(sha256, variant) if sha256 and tower == "vlm" else None
    if found:
        return found

    from engine.neurons import readout, table_of
    from engine.policies.smolvla import load_policy

    click.echo(f"reading the weights of {one_line(policy)} ...", err=True)
    loaded = load_policy(policy)
    if tower == "expert":
        readout(loaded, tower)

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"\rlayer {done}/{total}", nl=done == total, err=True)

    return table_of(loaded, variant, progress)


def about(facts: dict) -> list[str]:
    """What a table was made from, and whether that is sound."""
    head = facts["lm_head"]
    place = {True: "in the checkpoint", False: "not in the checkpoint", None: "in memory"}
    tied = "tied to" if head["tied"] else "not tied to"
    raw = "" if facts["token_norm"] == "l2" else ", tokens at their own length"
    folded = ", final norm folded in" if facts["fold_norm"] else ""
    lines = [
        f"{facts['policy']} {facts['sha256'][:8]}: {facts['layers']} layers of {facts['neurons']} "
        f"neurons, {facts['vocabulary']} tokens{raw}{folded}",
        f"lm_head: {place[head['in_checkpoint']]}, {tied} the embedding, mean cos(U_t, E_t) "
        f"{head['cosine']:.3f}",
    ]
    entropy, highest = facts["weight_entropy"], math.log(len(facts["random_tokens"][0]))
    if entropy > UNIFORM * highest:
        lines.append(
            f"a neuron's top tokens weigh nearly the same (entropy {entropy:.3f} of at most "
            f"{highest:.3f} nats): embeddings are close to plain means"
        )
    return lines


def lexicons_with(file: str | None) -> "Lexicons":
    """The shipped concepts, and those of a file in front of them."""
    from analysis.lexicons import LEXICONS, read_lexicons

    return LEXICONS | read_lexicons(file) if file else LEXICONS


def _policy_and_traces(
    words: tuple[str, ...], traces: tuple[str, ...]
) -> tuple[str, tuple[str, ...]]:
    """Files after --traces, unfolded by the shell, come as words; the other word is the policy."""
    files = tuple(word for word in words if word.endswith((".h5", ".partial"))) if traces else ()
    others = [word for word in words if word not in files]
    if len(others) > 1:
        raise UserError(f"unexpected argument {one_line(others[1])!r}; one POLICY is read")
    return (others or ["smolvla-tabletop"])[0], traces + files


def _layers(text: str) -> tuple[int, ...]:
    """The numbers that "0-3,5" names, ascending."""
    layers: set[int] = set()
    for part in text.split(",") if text else ():
        match = re.fullmatch(r"\s*(\d{1,4})(?:-(\d{1,4}))?\s*", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise UserError(f"--layers {one_line(text)!r}: expected layers such as 0-3 or 0,2")
        layers.update(range(first, last + 1))
    return tuple(sorted(layers))


def _fired(
    rows: "pl.DataFrame", query: "Query", traces: tuple[str, ...], sha256: str
) -> tuple["pl.DataFrame | None", list[str]]:
    """Statistics of the activations in the traces, if there are any, and what to say of them."""
    if not traces:
        return None, []
    from analysis.activity import activity
    from analysis.neurons import in_layers

    layers = in_layers(rows, query.layers).get_column("layer").unique().sort().to_list()
    found = activity(traces, sha256, layers)
    tested = found.rows.get_column("speed_p").count()
    counted = f"activations: {found.decisions} decisions in {found.episodes} episodes; speed_r "
    if tested:
        test = f"describes, speed_p tests the means of episodes (Holm over {tested} neurons)"
    else:
        test = "describes; too few episodes for a test"
    return found.rows, [counted + test, *found.notes]


def _about_answer(
    rows: "pl.DataFrame", found: "pl.DataFrame", query: "Query", facts: dict
) -> list[str]:
    """How much of what was found chance would give, and what to try when nothing was."""
    from analysis.neurons import in_layers
    from traces.errors import near_matches

    notes = []
    if query.concept:
        options = (query.concept, query.lexicons, query.against)
        notes.append(by_chance(in_layers(rows, query.layers), facts, *options))
    if query.word and found.is_empty():
        known = rows.select("top_tokens").explode("top_tokens").to_series().str.strip_chars()
        close = near_matches(query.word, known.unique().to_list())
        hint = f"; near: {', '.join(close)}" if close else ""
        notes.append(f"no neuron has '{query.word}' among its top tokens{hint}")
    return notes


def by_chance(
    rows: "pl.DataFrame", facts: dict, concept: str, lexicons: "Lexicons", against: str | None
) -> str:
    """What neurons score for a concept, beside what random directions do."""
    from analysis.lexicons import opposite_of
    from analysis.neurons import chance, concept_scores

    scores = concept_scores(rows, concept, lexicons, against)["score"].to_list()
    random = chance(facts["random_tokens"], concept, lexicons, against)
    minus = f" minus {opposite}" if (opposite := opposite_of(concept, lexicons, against)) else ""
    neurons, lucky = (sum(score >= QUALIFYING for score in part) for part in (scores, random))
    return (
        f"{concept}{minus}: {neurons} of {len(scores)} neurons score {QUALIFYING} or more, the "
        f"best {max(scores)}; of {len(random)} random directions {lucky}, the best {max(random)}"
    )


def _json(found: "pl.DataFrame", facts: dict, notes: list[str]) -> dict:
    facts = {key: value for key, value in facts.items() if key not in ("format", "random_tokens")}
    rows = [
        {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in row.items()
        }
        for row in found.iter_rows(named=True)
    ]
    return {"schema": 1} | facts | {"notes": [one_line(note) for note in notes], "neurons": rows}


def _csv(found: "pl.DataFrame") -> str:
    import polars as pl

    lists = [name for name, kind in found.schema.items() if kind.is_nested()]
    as_text = [
        pl.Series(name, [json.dumps(row, ensure_ascii=False) for row in found[name].to_list()])
        for name in lists
    ]
    return found.with_columns(as_text).write_csv()


def _write_parquet(found: "pl.DataFrame", path: "Path") -> None:
    scratch = path.with_name(f".{path.name}.scratch")
    try:
        found.write_parquet(scratch)
        scratch.replace(path)
    except OSError as error:
        raise UnwritableFolder(path.parent, error.strerror or str(error)) from None


def _print(found: "pl.DataFrame", query: "Query") -> None:
    columns = [
        ("neuron", [f"{layer}:{n}" for layer, n in found.select("layer", "neuron").rows()]),
        ("reach", ["yes" if reach else "no" for reach in found["reach"]]),
        ("norm", [f"{norm:.2f}" for norm in found["v_norm"]]),
        ("entropy", [f"{entropy:.2f}" for entropy in found["entropy"]]),
    ]
    if query.concept:
        for name, column in (("hits", "hits"), ("against", "opposite_hits"), ("score", "score")):
            columns.append((name, [str(value) for value in found[column]]))
    if query.word:
        columns.append(("rank", [str(rank) for rank in found["word_rank"]]))
    for name in ("act_mean", "act_std", "act_positive", "act_max", "speed_r", "speed_p"):
        if name in found.columns:
            shown = ["–" if value is None else f"{value:.3g}" for value in found[name]]
            columns.append((name, shown))
    if not query.concept:
        columns.append(("speaks of", spoken(found)))
    print_table(columns, found["top_tokens"].to_list())


def spoken(rows: "pl.DataFrame") -> list[str]:
    """The concepts of each row with their hits, such as "fast 13, careful 2"."""
    hits = rows.select("^hits_.*$")
    named = [
        sorted(((n, name.removeprefix("hits_")) for name, n in row.items() if n), reverse=True)
        for row in hits.iter_rows(named=True)
    ]
    return [", ".join(f"{concept} {n}" for n, concept in row[:3]) for row in named]


def print_table(columns: list[tuple[str, list[str]]], tokens: list[list[str]]) -> None:
    """Print columns of text and, in what room is left, as many whole tokens as fit."""
    from rich.console import Console

    widths = [max(map(len, (name, *cells))) for name, cells in columns]
    room = max(20, Console().width - sum(widths) - 2 * len(widths))
    lines = [[name for name, _ in columns], *zip(*(cells for _, cells in columns), strict=True)]
    for line, last in zip(
        lines, ["top tokens", *(_fitting(row, room) for row in tokens)], strict=True
    ):
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join([*cells, last]).rstrip())


def _fitting(tokens: list[str], room: int) -> str:
    text = ""
    for token in tokens:
        longer = f"{text} {one_line(token) or repr(token)}".strip()
        if len(longer) > room:
            break
        text = longer
    return text
