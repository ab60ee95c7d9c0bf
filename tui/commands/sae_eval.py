"""`vla-trace sae eval FOLDERS`: how good autoencoders are, on rows and inside the policy."""

from typing import TYPE_CHECKING

import click

from traces.errors import UserError
from tui.terminal import Exit, one_line, to_json

if TYPE_CHECKING:
    from analysis.sae.measures import Reconstruction
    from engine.policies.smolvla import LoadedPolicy
    from traces.autoencoder import Autoencoder


@click.command(
    name="eval",
    help="""Judge autoencoders of one site.

    On held-out episodes of --traces: FVU is the fraction of variance unexplained, L0 the features
    of a row, dead the share of features that never fire; stability is how much of one is found
    again under the other seeds (mean of the largest |cosine|; in brackets what random directions
    give). With --actions the reconstruction is spliced into the policy on the recording's own
    observations and noise, and with --rollouts N it acts on N held-out scenes, beside the policy
    as it is.

    \b
      vla-trace sae eval sae/vlm.2.resid_post/seed* --traces "traces/*.h5"
      vla-trace sae eval FOLDER --traces FILE --actions FILE       kept with --keep frames
      vla-trace sae eval FOLDER --traces FILE --rollouts 100 --task 1

    docs/sae.md defines every number.
    """,
)
@click.argument("folders", nargs=-1, required=True)
@click.option("--traces", "files", multiple=True, required=True, metavar="FILES")
@click.option("--actions", metavar="FILE", help="A recording with frames, to ask the policy again.")
@click.option("--episodes", type=click.IntRange(1), default=10, show_default=True, help="Of it.")
@click.option("--rollouts", type=click.IntRange(0), default=0, help="Held-out scenes to play.")
@click.option("--task", default="0", show_default=True, help="Of the rollouts.")
@click.option("--suite", default="tabletop", show_default=True)
@click.option("--policy", default="smolvla-tabletop", show_default=True, help="Name or folder.")
@click.option("--other-policy", is_flag=True, help="Take traces or a policy it was not trained on.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    folders: tuple[str, ...],
    files: tuple[str, ...],
    actions: str | None,
    episodes: int,
    rollouts: int,
    task: str,
    suite: str,
    policy: str,
    other_policy: bool,
    as_json: bool,
) -> Exit:
    """A line an autoencoder, and what it does to the policy below."""
    from analysis.sae.rows import check_policy
    from traces.autoencoder import load_autoencoder

    saes = {folder: load_autoencoder(folder) for folder in folders}
    rows, control = _on_rows(saes, files, other_policy)
    if actions or rollouts:
        from tui.commands.recording import load

        loaded = load(policy)
        for folder, row in rows.items():
            if not other_policy:
                check_policy(saes[folder], folder, policy, loaded.sha256)
            if actions:
                row["actions"] = _on_actions(folder, actions, episodes, loaded)
            if rollouts:
                row["rollouts"] = _on_rollouts(folder, rollouts, task, suite, loaded)
    if as_json:
        click.echo(to_json({"schema": 1, "random_stability": control, "autoencoders": rows}))
        return Exit.OK
    for folder, row in rows.items():
        _print(folder, row, control)
    return Exit.OK


def _on_rows(
    saes: "dict[str, Autoencoder]", files: tuple[str, ...], other_policy: bool
) -> tuple[dict[str, dict], float]:
    """What each does to held-out rows of its site; stability, and what chance gives of it."""
    import numpy as np

    from analysis.sae.measures import random_stability, reconstruction, stability
    from analysis.sae.rows import check_policy, policy_hash, split_rows
    from traces.collection import open_traces

    found: dict[str, Reconstruction] = {}
    with open_traces(*files) as traces:
        for folder, sae in saes.items():
            _, held_out, _, policy = split_rows(traces, files, sae.site)
            _check_width(folder, sae, held_out.width)
            if not other_policy:
                check_policy(sae, folder, policy, policy_hash(traces))
            found[folder] = reconstruction(sae, held_out.in_order())
            if not found[folder].rows:
                raise UserError(f"{sae.site} has no finite row in the held-out episodes")
    alive = [one.density > 0 for one in found.values()]
    again = dict.fromkeys(saes)
    if len(saes) > 1 and len({(sae.site, sae.width) for sae in saes.values()}) == 1:
        again = dict(zip(saes, stability(list(saes.values()), alive), strict=True))
    rows = {
        folder: {"site": saes[folder].site, "sha256": saes[folder].sha256}
        | one.to_dict()
        | {"stability": again[folder]}
        for folder, one in found.items()
    }
    width, n_alive = next(iter(saes.values())).width, round(np.mean([one.sum() for one in alive]))
    return rows, random_stability(width, max(1, n_alive))


def _check_width(folder: str, sae: "Autoencoder", width: int) -> None:
    if sae.width != width:
        raise UserError(
            f"{folder} reads rows of {sae.width}, {sae.site} in these traces has {width}; give "
            "traces of the policy that it was trained on"
        )


def _on_actions(folder: str, file: str, episodes: int, loaded: "LoadedPolicy") -> dict:
    """How much of the action is left, with intervals over episodes."""
    from analysis.stats import bootstrap_ci
    from engine.recovery import ABLATIONS, recovery
    from tui.progress import counting

    with counting("asked again", episodes) as shown:
        found = recovery(
            file, loaded, folder, episodes, lambda done, total: shown(done, f"of {total}")
        )
    facts: dict = {"episodes": len(found.spliced), "decisions": found.decisions}
    facts["mse"] = float(found.spliced.mean())
    for name in ABLATIONS:
        ablated = getattr(found, name)
        share = 1 - found.spliced / ablated
        facts[f"mse_{name}"] = float(ablated.mean())
        facts[f"recovered_{name}"] = float(share.mean())
        facts[f"recovered_{name}_ci"] = bootstrap_ci(share)
    return facts


def _on_rollouts(folder: str, n: int, task: str, suite: str, loaded: "LoadedPolicy") -> dict:
    """Success with the reconstruction in place, and without, on the same scenes."""
    from analysis.proportions import wilson
    from analysis.stats import paired_success
    from engine.actor import Actor
    from engine.config import EvalConfig
    from engine.envs import load_suite
    from engine.evaluate import outcomes_of
    from engine.likelihoods.flow_sde import FlowSDE
    from engine.recovery import splice
    from traces.autoencoder import load_autoencoder
    from tui.progress import counting

    own = loaded.policy.config
    config = EvalConfig(suite=suite, episodes=n, replan=own.n_action_steps, steps=own.num_steps)
    sampler, put_in = FlowSDE(config.steps, 0.0), splice(folder, load_autoencoder(folder))
    actors = [Actor(loaded, sampler, config.replan, what, ()) for what in (put_in, None)]
    with counting("rollouts", 2 * n) as shown:
        spliced, base = outcomes_of(
            config,
            actors,
            load_suite(suite).task_id_of(task),
            played=lambda done: shown(done, "spliced, then the policy as it is"),
        )
    paired = paired_success(spliced, base)
    return {
        "n": n,
        "success": sum(spliced),
        "ci": wilson(sum(spliced), n),
        "base_success": sum(base),
        "base_ci": wilson(sum(base), n),
        "difference": paired.difference,
        "difference_ci": paired.ci,
        "p_value": paired.p_value,
    }


def _recovered(found: dict, ablation: str) -> str:
    """Share recovered with its interval, which a single episode does not have."""
    share, ci = found[f"recovered_{ablation}"], found[f"recovered_{ablation}_ci"]
    return f"{share:.3f} [{ci[0]:.3f}, {ci[1]:.3f}]" if ci else f"{share:.3f}"


def _print(folder: str, row: dict, control: float) -> None:
    from analysis.conditions import count_of

    text = (
        f"{one_line(folder)}: FVU {row['fvu']:.3f}, variance explained "
        f"{row['variance_explained']:.3f}, L0 {row['l0']:.1f}, dead {row['dead_share']:.1%}, "
        f"cosine {row['cosine']:.4f}"
    )
    if row["stability"] is not None:
        text += f", stability {row['stability']:.2f} (random {control:.2f})"
    click.echo(f"{text}, {row['rows']} held-out rows")
    if found := row.get("actions"):
        mean, zero = (_recovered(found, name) for name in ("mean", "zero"))
        click.echo(
            f"  actions: {mean} recovered against the mean, {zero} against zero, "
            f"{count_of(found['episodes'])}, {count_of(found['decisions'], 'decision')}"
        )
    if found := row.get("rollouts"):
        ci = found["difference_ci"]
        within = f" [{ci[0]:+.0%}, {ci[1]:+.0%}]" if ci else ""
        click.echo(
            f"  rollouts: {found['success']} of {found['n']} spliced, {found['base_success']} as "
            f"it is: {found['difference']:+.0%}{within}, McNemar p "
            f"{found['p_value']:.2g}"
        )
