"""The rows that an autoencoder learns from: one site of some traces, split by episode.

A row is what the site holds of a decision: one vector, or one a token (and denoising step) where
these were kept. Rows of one episode resemble each other, so whole episodes are held out: those
whose uid's hash falls into the last tenth, whatever else is in the traces.

Memory does not grow with the traces: blocks of neighbouring rows are drawn in a random order into a
buffer of `BUFFER_BYTES`, which is shuffled. Traces that fit into it are read once.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.natural import natural_episodes
from traces.autoencoder import Autoencoder
from traces.collection import TraceCollection
from traces.errors import UnknownName, UserError
from traces.header import SiteInfo
from traces.intervention import TOKEN_GROUPS
from traces.lazy import LazyActivations

BLOCK_ROWS = 256
"""Decisions read at a time, of a site with one row each."""
LEAST_BLOCK = 16
"""Of a site that keeps tokens apart, whose blocks are shorter as they hold more rows."""
CHUNK_ROWS = 8192
"""Rows handed on at a time, when they are read in order."""
BUFFER_BYTES = 128 * 2**20
HELD_OUT = 0.1
"""Share of the episodes that no weight is trained on."""


@dataclass(frozen=True)
class SiteRows:
    """Some decisions of one site.

    Args:
        values: activations of the site.
        blocks: spans of its first axis, each within one episode.
    """

    values: LazyActivations
    blocks: tuple[slice, ...]

    @property
    def width(self) -> int:
        """Entries of a row."""
        return self.values.shape[-1]

    @property
    def n(self) -> int:
        """Rows, those that are padding or overflowed included."""
        decisions = sum(block.stop - block.start for block in self.blocks)
        return decisions * int(np.prod(self.values.shape[1:-1]))

    @property
    def fits(self) -> bool:
        """Whether all of it may stay in memory."""
        return self.n * self.width * 4 <= BUFFER_BYTES

    def in_order(self) -> Iterator[np.ndarray]:
        """Yield all finite rows, (rows, d) float32, some thousands at a time."""
        held: list[np.ndarray] = []
        for block in self.blocks:
            held.append(_finite(self.values[block]))
            if sum(map(len, held)) >= CHUNK_ROWS:
                yield np.concatenate(held)
                held = []
        if held:
            yield np.concatenate(held)


class Shuffled:
    """Batches in a new order every epoch, the same ones for the same seed and epoch.

    Args:
        rows: what to draw from.
        batch: rows of a batch.
        seed: of the order.
    """

    def __init__(self, rows: SiteRows, batch: int, seed: int) -> None:
        self.rows, self.batch, self.seed = rows, batch, seed
        self._all = np.concatenate(list(rows.in_order())) if rows.fits else None

    def epoch(self, epoch: int) -> Iterator[np.ndarray]:
        """Yield batches (batch, d) float32; what is left over at the end is left out."""
        rng = np.random.default_rng((self.seed, epoch))
        left = np.empty((0, self.rows.width), np.float32)
        for part in self._parts(rng):
            order = rng.permutation(len(part))
            begin = 0
            if len(left) and len(left) + len(part) >= self.batch:  # of the buffer before
                begin = self.batch - len(left)
                yield np.concatenate([left, part[order[:begin]]])
                left = left[:0]
            stop = begin + (len(part) - begin) // self.batch * self.batch if not len(left) else 0
            for start in range(begin, stop, self.batch):
                yield part[order[start : start + self.batch]]
            left = np.concatenate([left, part[order[stop:]]])

    def _parts(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield what is in the buffer, each time that it is full."""
        if self._all is not None:
            yield self._all
            return
        full = BUFFER_BYTES // (4 * self.rows.width)
        held: list[np.ndarray] = []
        for i in rng.permutation(len(self.rows.blocks)):
            held.append(_finite(self.rows.values[self.rows.blocks[i]]))
            if sum(map(len, held)) >= full:
                yield np.concatenate(held)
                held = []
        if held:
            yield np.concatenate(held)


def split_rows(
    traces: TraceCollection, paths: Iterable[Path | str], site: str
) -> tuple[SiteRows, SiteRows, list[str], str]:
    """Find the rows of a site in the unsteered episodes of one policy.

    Args:
        traces: the open traces.
        paths: the same, as `natural_episodes` takes them.
        site: its name, such as vlm.2.resid_post.

    Returns:
        Rows to train on, rows held out, notes, and the policy's name.

    Raises:
        UserError: no such site, no unsteered episode, or fewer than two episodes.
    """
    frame, notes = natural_episodes(paths)
    info = named_site(traces, site)
    values = traces.activation(info.name)
    columns = traces.episodes("uid", "session", "first_decision", "n_decisions")
    known = zip(columns["uid"].tolist(), columns["session"].tolist(), strict=True)
    place = {key: row for row, key in enumerate(known)}
    chosen = sorted(place[key] for key in frame.select("uid", "session").iter_rows())
    blocks = {row: _blocks(values, columns, row) for row in chosen}
    recorded = [row for row in chosen if blocks[row]]
    if len(recorded) < 2:
        raise UserError(
            f"{info.name} was recorded in {len(recorded)} unsteered episodes; at least 2 are "
            "needed, one to hold out: vla-trace record --episodes 50"
        )
    held = [row for row in recorded if is_held_out(str(columns["uid"][row]))]
    held = held or recorded[-1:]
    if len(held) == len(recorded):
        held = held[:1]
    parts = [[row for row in recorded if (row in held) == out] for out in (False, True)]
    train, test = (
        SiteRows(values, tuple(b for row in rows for b in blocks[row])) for rows in parts
    )
    notes.append(f"{len(parts[0])} episodes to train on, {len(parts[1])} held out")
    return train, test, notes, str(frame["policy"][0])


def is_held_out(uid: str) -> bool:
    """Whether an episode is one that no weight is trained on."""
    first = hashlib.sha256(uid.encode()).digest()[:4]
    return int.from_bytes(first, "big") / 2**32 >= 1 - HELD_OUT


def named_site(traces: TraceCollection, name: str) -> SiteInfo:
    """The recorded site of that name, `expert` being short or long.

    Raises:
        UserError: nothing was recorded; UnknownName: not this.
    """
    sites = {site.name: site for site in traces.sites()}
    if not sites:
        raise UserError(
            "no activations in these traces; record some with: vla-trace record --capture light"
        )
    name = name.replace("expert.", "exp.", 1)
    if name not in sites:
        raise UnknownName("recorded site", name, sites)
    return sites[name]


def tokens_of(site: SiteInfo) -> str:
    """The tokens a site was recorded of, as `--capture` names them: all, language, chunk, ..."""
    named = set(site.name.split(".")[3:]) & {*TOKEN_GROUPS, "chunk"}
    return named.pop() if named else "executed" if site.tower == "expert" else "all"


def policy_hash(traces: TraceCollection) -> str:
    """Hash of the policy of some traces; empty where there are several."""
    hashes = {str(sha) for sha in traces.table("policies", "sha256")["sha256"]}
    return hashes.pop() if len(hashes) == 1 else ""


def check_policy(sae: Autoencoder, folder: Path | str, policy: str, sha256: str) -> None:
    """Refuse an autoencoder of another policy, where it says of which it is.

    Args:
        sae: the autoencoder.
        folder: where it is.
        policy: name of the policy that is looked at.
        sha256: its hash; empty where unknown.

    Raises:
        UserError: it was trained on another one.
    """
    trained = str(sae.metadata.get("policy_sha256", ""))
    if trained and sha256 and trained != sha256:
        raise UserError(
            f"{folder} was trained on {sae.metadata.get('policy', 'another policy')}, this is "
            f"{policy}, whose features are not the same; train one on it: vla-trace sae train, or "
            "take it all the same: --other-policy"
        )


def _blocks(values: LazyActivations, columns: dict, row: int) -> list[slice]:
    """Spans of the site's rows that belong to an episode."""
    first = int(columns["first_decision"][row])
    last = first + int(columns["n_decisions"][row])
    start, stop = np.searchsorted(values.decisions, [first, last]).tolist()
    tokens = int(np.prod(values.shape[1:-1]))
    each = BLOCK_ROWS if tokens == 1 else max(LEAST_BLOCK, BLOCK_ROWS // tokens)
    return [slice(i, min(i + each, stop)) for i in range(start, stop, each)]


def _finite(values: np.ndarray) -> np.ndarray:
    """Rows (rows, d) float32 without those that are padding or overflowed."""
    rows = values.reshape(-1, values.shape[-1]).astype(np.float32)
    return rows[np.isfinite(rows).all(axis=1)]
