"""`vla-trace sae train FILES --site SITE`: autoencoders of several seeds."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from traces.errors import UserError
from tui.terminal import Exit, one_line, to_json

if TYPE_CHECKING:
    from analysis.sae.rows import SiteRows
    from analysis.sae.training import Evaluation, SaeConfig
    from traces.collection import TraceCollection

FEW = 50
"""Rows a latent below which features are likely to be single episodes."""
LOG = "training.jsonl"


@click.command(
    name="train",
    help="""Train sparse autoencoders on a site that FILES recorded.

    FILES are unsteered traces of one policy. One autoencoder a seed goes to OUT/seed0, OUT/seed1,
    ..., in SAELens' layout. A tenth of the episodes is held out: by them training stops, and on
    them it is judged. Ctrl-C stops; --resume goes on with the epoch that was cut.

    \b
      vla-trace record --episodes 100 --capture light --out traces
      vla-trace sae train traces/*.h5 --site vlm.2.resid_post
      vla-trace sae eval sae/vlm.2.resid_post/seed* --traces "traces/*.h5"

    docs/sae.md defines every number.
    """,
)
@click.argument("files", nargs=-1, required=True)
@click.option("--site", required=True, metavar="SITE", help="Such as vlm.2.resid_post.")
@click.option("--out", metavar="FOLDER", help="Default: sae/SITE.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--latents", type=click.IntRange(0), default=0, help="0: the site's width.")
@click.option("--k", type=click.IntRange(0), default=0, help="Features a row; 0: width / 8, <= 32.")
@click.option("--architecture", default="topk", show_default=True, metavar="topk|batchtopk")
@click.option(
    "--normalisation",
    default="layer_norm",
    show_default=True,
    metavar="layer_norm|expected_norm|none",
)
@click.option("--lr", type=float, default=0.0, help="0: 2e-4 / sqrt(latents / 16384).")
@click.option("--batch", type=int, default=1024, show_default=True, help="Rows a step.")
@click.option("--epochs", type=int, default=200, show_default=True, help="At most.")
@click.option("--patience", type=int, default=10, show_default=True, help="Epochs without gain.")
@click.option("--dead-steps", type=int, default=500, show_default=True, help="Silent: dead.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda")
@click.option("--resume", is_flag=True, help="Go on where OUT stopped.")
@click.option("--force", is_flag=True, help="Replace what OUT holds.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    files: tuple[str, ...],
    site: str,
    out: str | None,
    seeds: int,
    device: str,
    resume: bool,
    force: bool,
    as_json: bool,
    **options: object,
) -> Exit:
    """Train, a line a seed on stdout."""
    from analysis.sae.rows import split_rows
    from analysis.sae.training import SaeConfig, device_of
    from traces.collection import open_traces

    if resume and force:
        raise UserError("--resume goes on, --force begins again: give one of them")
    config, where = SaeConfig(**options), device_of(device)
    rows_of = []
    with open_traces(*files) as traces:
        train, held_out, notes, policy = split_rows(traces, files, site)
        config = config.fitted(train.width, train.n)
        root = Path(out or f"sae/{train.values.site}")
        folders = [root / f"seed{seed}" for seed in range(seeds)]
        for folder in folders:
            _check_free(folder, resume, force)
        for note in notes:
            click.echo(f"note: {one_line(note)}", err=True)
        _say_rows(train, config)
        about = _about(traces, train, policy)
        for seed, folder in enumerate(folders):
            one = replace(config, seed=seed)
            rows_of.append(_trained(one, train, held_out, folder, about, where, force))
            if not as_json:
                click.echo(_line(folder, rows_of[-1]))
    if as_json:
        click.echo(to_json({"schema": 1, "config": asdict(config), "autoencoders": rows_of}))
    else:
        patterns = " ".join(f'"{one_line(file)}"' for file in files[:1])
        click.echo(f"next: vla-trace sae eval {root}/seed* --traces {patterns}", err=True)
    return Exit.OK


def _check_free(folder: Path, resume: bool, force: bool) -> None:
    from analysis.sae.training import STATE
    from traces.autoencoder import CONFIG

    if resume or force:
        return
    if (folder / CONFIG).exists():
        raise UserError(f"{folder} holds an autoencoder; --force replaces it, --out goes elsewhere")
    if (folder / STATE).exists():
        raise UserError(f"{folder} holds a training that stopped; go on: --resume, anew: --force")


def _say_rows(train: "SiteRows", config: "SaeConfig") -> None:
    """Say what there is to learn from, and whether it is enough."""
    share = train.n / config.latents
    click.echo(
        f"{train.values.site}: {train.n} rows of {train.width}, {config.latents} latents, "
        f"k {config.k}, {share:.0f} rows a latent",
        err=True,
    )
    if share < FEW:
        click.echo(
            f"warning: fewer than {FEW} rows a latent; most features will be single episodes. "
            "Record more (--episodes, --replan 1) or take fewer --latents",
            err=True,
        )


def _about(traces: "TraceCollection", train: "SiteRows", policy: str) -> dict:
    """What an autoencoder says of where it comes from."""
    from analysis.sae.rows import policy_hash, tokens_of

    site = next(one for one in traces.sites() if one.name == train.values.site)
    return {
        "site": site.name,
        "tower": site.tower,
        "layer": site.layer,
        "kind": site.name.split(".")[2],
        "rows": "mean" if site.dims == ("D", "N") else "token",
        "tokens": tokens_of(site),
        "policy": policy,
        "policy_sha256": policy_hash(traces),
        "train_rows": train.n,
    }


def _trained(
    config: "SaeConfig",
    train: "SiteRows",
    held_out: "SiteRows",
    folder: Path,
    about: dict,
    device: str,
    force: bool,
) -> dict:
    """Train one seed, or go on with it; returns what is reported of it."""
    from analysis.sae.measures import reconstruction
    from analysis.sae.training import STATE, Training
    from traces.autoencoder import CONFIG, load_autoencoder, save_autoencoder
    from tui.progress import counting

    if force:
        for name in (CONFIG, STATE, LOG):
            (folder / name).unlink(missing_ok=True)
    if not (folder / CONFIG).exists():
        training = Training(config, train, held_out, device)
        training.load(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with counting(f"seed {config.seed}", config.epochs, training.epoch) as shown:
            while not training.is_over:
                found = training.run_epoch()
                training.save(folder)
                _logged(folder / LOG, found)
                shown(found.epoch, f"FVU {found.fvu:.3f}, {found.dead} dead")
        facts = {"config": asdict(config), "epochs": training.epoch, "steps": training.step}
        save_autoencoder(folder, training.result(about | facts))
        (folder / STATE).unlink(missing_ok=True)
    sae = load_autoencoder(folder)
    if sae.metadata.get("config") != asdict(config):
        raise UserError(
            f"{folder} holds an autoencoder trained with other settings; give the same ones to "
            "--resume, or --force to begin again"
        )
    measured = reconstruction(sae, held_out.in_order()).to_dict()
    return {"folder": str(folder), "seed": config.seed, "sha256": sae.sha256} | measured


def _logged(path: Path, found: "Evaluation") -> None:
    with path.open("a", encoding="utf-8") as log:
        log.write(json.dumps(asdict(found)) + "\n")


def _line(folder: Path, row: dict) -> str:
    return (
        f"{one_line(str(folder)):32} FVU {row['fvu']:.3f}  L0 {row['l0']:.1f}  "
        f"dead {row['dead_share']:.1%}  cosine {row['cosine']:.4f}  held-out rows {row['rows']}"
    )
