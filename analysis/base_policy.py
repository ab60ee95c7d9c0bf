"""Which of the policies in some traces is the base, that the others were fine-tuned from."""

from pathlib import Path

import polars as pl

from analysis.checkpoints import CHECKPOINT
from analysis.conditions import name_of
from analysis.tables import read_episodes
from traces.errors import UnknownName, UserError

POLICY = ("policy_id", "policy", "policy_path")


def base_policy(frame: pl.DataFrame, wanted: str = "", notes: list[str] | None = None) -> str:
    """Return the `policy_id` of the base; "" when there is no policy to choose from.

    Policies of training traces (kind `grpo`) are not asked: what they play is training scenes, with
    exploration noise. Without `wanted` the base is the only policy that is no checkpoint of a
    training run, else the one of the oldest recording.

    Args:
        frame: rows of any table of episodes.
        wanted: name, with or without its hash; hash; path; or a trace of that policy.
        notes: gets a sentence about how it was chosen, where there was a choice.

    Raises:
        UnknownName: no policy of the frame is called so.
        UserError: several are.
    """
    played = frame.filter(pl.col("kind") != "grpo")
    known = played.group_by(POLICY).agg(pl.col("created_utc").min()).sort("created_utc", *POLICY)
    if wanted:
        return _named(known, wanted)
    if known.is_empty():
        return ""
    untrained = [row for row in known.rows(named=True) if not CHECKPOINT.search(row["policy_path"])]
    alone = len(untrained) == 1
    base = untrained[0] if alone else known.row(0, named=True)
    if len(known) > 1 and notes is not None:
        why = (
            "the only policy that is no checkpoint of a training run"
            if alone
            else ("the policy of the oldest recording")
        )
        notes.append(f"the base is {base['policy']}, {why}; another one: --base NAME")
    return base["policy_id"]


def _named(known: pl.DataFrame, wanted: str) -> str:
    if Path(wanted).expanduser().is_file():
        ids = set(read_episodes([wanted]).frame["policy_id"])
    else:
        ids = {row["policy_id"] for row in known.rows(named=True) if _is_called(row, wanted)}
    if len(ids) > 1:
        names = sorted(known.filter(pl.col("policy_id").is_in(ids))["policy"])
        raise UserError(f"--base {wanted}: several policies match ({', '.join(names)}); name one")
    if not ids & set(known["policy_id"]):
        raise UnknownName("base policy", wanted, sorted(set(known["policy"])))
    return ids.pop()


def _is_called(policy: dict, wanted: str) -> bool:
    name, _, _ = policy["policy"].partition("@")
    path = policy["policy_path"].rstrip("/")
    full = wanted in (policy["policy"], name, path) or wanted.rstrip("/") == path
    return full or (len(wanted) >= 8 and policy["policy_id"].startswith(wanted))


def why_no_base(frame: pl.DataFrame, row: dict, base_id: str) -> str:
    """Say what keeps a condition, given by one of its rows, from being compared with the base."""
    name = f"{row['policy']}, {name_of(row)}"
    same = [pl.col(key) == row[key] for key in ("suite", "task_id", "fingerprint", "prompt")]
    of_base = frame.filter(pl.col("policy_id") == base_id, *same)
    if of_base.is_empty():
        return f"{name}: the base has no such condition in these files, so it is not compared"
    base = of_base.row(0, named=True)
    mine, its = (f"{r['sampler']}, K {r['K']}, replan {r['replan']}" for r in (row, base))
    settings = "other settings of it" if mine == its else its
    return f"{name}: recorded with {mine}, the base with {settings}, so it is not compared"
