"""The trace format in one table: every column with its type, axes, unit and meaning.

The writer creates datasets from these tables, the reader names columns by them, and
`python -m traces.schema` prints them as the tables of docs/trace-format.md.

Strings are fixed-length UTF-8, because a file that must survive a crash is written in HDF5's
single-writer mode, which has no variable-length data.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from math import nan

FORMAT = "vla-trace"
FORMAT_VERSION = 1

AXES = {
    "E": "episodes",
    "T": "control steps, all episodes one after the other",
    "D": "decisions (policy calls), all episodes one after the other",
    "H": "chunk horizon: action rows a decision proposes",
    "K": "denoising steps of a decision",
    "A": "executed action dimensions",
    "Z": "latent action width (the model's max_action_dim)",
    "G": "group size: episodes compared with each other by the trainer",
    "L": "layers",
    "N": "neurons, or other units of a site",
    "W": "language tokens, padded to a fixed length",
    "R": "rows of a table in long form",
    "B": "entries of a stream",
}


@dataclass(frozen=True)
class Field:
    """One column: an HDF5 dataset whose first axis grows."""

    name: str
    dtype: str
    """A numpy dtype name, or `textN`: UTF-8 of at most N bytes."""
    dims: tuple[str, ...]
    """Axis letters, numbers or sums of the two ("K+1"); the first axis is the row."""
    unit: str
    """SI unit, or "1" for what has none."""
    doc: str
    fill: object = None
    """What stands for "not known" (None: the column must be given for every row)."""
    wall_clock: bool = False
    """Differs between two otherwise identical runs."""
    derived: bool = False
    """Worked out by the writer; a record never contains it."""
    optional: bool = False
    """Present only when the run asked for it."""
    shorten: bool = False
    """A text that is too long is cut and ends in an ellipsis (others are refused)."""

    @property
    def text_bytes(self) -> int:
        """Longest text in bytes; 0 for a numeric column."""
        return int(self.dtype[4:]) if self.dtype.startswith("text") else 0

    def row_shape(self, sizes: dict[str, int]) -> tuple[int, ...]:
        """Return the shape of one row, given the size of each axis letter."""
        return tuple(axis_size(dim, sizes) for dim in self.dims[1:])


def axis_size(dim: str, sizes: dict[str, int]) -> int:
    """Resolve "7", "K" or "K+1"."""
    return sum(int(part) if part.isdigit() else sizes[part] for part in dim.split("+"))


NAME, SHA, UID, PATH, LONG, INSTRUCTION = (
    "text64",
    "text64",
    "text96",
    "text512",
    "text512",
    "text256",
)

UNSTEERED = "unsteered policy; where steered, only with `--keep base-log-prob`"

POLICIES = (
    Field("policy_version", "int32", ("R",), "1", "number the other tables refer to"),
    Field("update", "int32", ("R",), "1", "training update that made these weights (0: untrained)"),
    Field("sha256", SHA, ("R",), "1", "hash of the weights", fill=""),
    Field("path", PATH, ("R",), "1", "folder or hub id the weights were loaded from", fill=""),
)

EPISODES = (
    Field("uid", UID, ("E",), "1", "unique name: run, update, group, attempt and member"),
    Field("update", "int32", ("E",), "1", "training update that collected it", fill=-1),
    Field("group", "int32", ("E",), "1", "group within the update", fill=-1),
    Field("attempt", "int32", ("E",), "1", "how often the group had been drawn before", fill=-1),
    Field("member", "int32", ("E",), "1", "place within the group", fill=-1),
    Field(
        "session",
        "int32",
        ("E",),
        "1",
        "how often the run had been resumed; of equal uids the largest counts",
        fill=0,
    ),
    Field("policy_version", "int32", ("E",), "1", "row of policies/ that acted"),
    Field("suite", NAME, ("E",), "1", "task suite"),
    Field("task_id", "int32", ("E",), "1", "task within the suite"),
    Field("task_name", "text128", ("E",), "1", "its name"),
    Field("instruction", INSTRUCTION, ("E",), "1", "what the policy was told"),
    Field(
        "prefix_layout",
        LONG,
        ("E",),
        "1",
        "JSON: token group (image, language, state) to its [start, stop) in the prefix",
        fill="",
    ),
    Field("init_state", "int32", ("E",), "1", "number of the fixed initial state"),
    Field("scene_seed", "int64", ("E",), "1", "seed of what the initial state leaves open"),
    Field("noise_key", UID, ("E",), "1", "run_seed/update/group/member of the policy's noise"),
    Field("pair_key", UID, ("E",), "1", "equal for episodes that differ in the condition only"),
    Field("first_step", "int64", ("E",), "1", "first row in steps/", derived=True),
    Field("n_steps", "int32", ("E",), "1", "rows in steps/", derived=True),
    Field("first_decision", "int64", ("E",), "1", "first row in decisions/", derived=True),
    Field("n_decisions", "int32", ("E",), "1", "rows in decisions/", derived=True),
    Field("success", "bool", ("E",), "1", "the task was solved at least once"),
    Field("terminated", "bool", ("E",), "1", "ended by the task"),
    Field("truncated", "bool", ("E",), "1", "ended by the step limit"),
    Field("return", "float64", ("E",), "1", "sum of rewards"),
    Field("final_ee_pos", "float64", ("E", "3"), "m", "end effector at the end, world", fill=nan),
    Field(
        "error",
        LONG,
        ("E",),
        "1",
        "why it was cut short; empty when it was not",
        fill="",
        shorten=True,
    ),
    Field("wall_s", "float64", ("E",), "s", "time it took", fill=nan, wall_clock=True),
)

STEPS = (
    Field("episode", "int64", ("T",), "1", "row in episodes/", derived=True),
    Field("t", "int32", ("T",), "1", "control step within the episode"),
    Field("decision", "int64", ("T",), "1", "row in decisions/ that chose the action"),
    Field("chunk_offset", "int32", ("T",), "1", "row of that decision's chunk"),
    Field("action", "float32", ("T", "A"), "1", "as sent to the environment"),
    Field("action_policy", "float32", ("T", "A"), "1", "as the policy gave it, before clipping"),
    Field("log_prob", "float64", ("T",), "nat", "of this action row, policy that acted", fill=nan),
    Field("log_prob_base", "float64", ("T",), "nat", f"of it, {UNSTEERED}", fill=nan),
    Field("reward", "float64", ("T",), "1", "given for this step"),
    Field("ee_pos", "float64", ("T", "3"), "m", "end effector before the action, world"),
    Field("ee_quat", "float64", ("T", "4"), "1", "its orientation, xyzw, world"),
    Field("gripper", "float64", ("T", "2"), "m", "finger joint positions"),
    Field("state", "float64", ("T", "8"), "mixed", "proprioception given to the policy"),
    Field("contact", "bool", ("T",), "1", "a finger touches something"),
    Field("contact_force", "float64", ("T",), "N", "sum of normal forces on the fingers", fill=nan),
    Field("intervened", "bool", ("T",), "1", "the intervention acted on this step's decision"),
)

DECISIONS = (
    Field("episode", "int64", ("D",), "1", "row in episodes/", derived=True),
    Field("t", "int32", ("D",), "1", "control step within the episode at which it was made"),
    Field("n_executed", "int32", ("D",), "1", "action rows of the chunk that were sent"),
    Field(
        "log_prob", "float64", ("D",), "nat", "of the sampled chain, policy that acted", fill=nan
    ),
    Field("log_prob_base", "float64", ("D",), "nat", f"of it, {UNSTEERED}", fill=nan),
    Field("noise_std", "float32", ("D", "K"), "1", "noise of each denoising step; 0: an ODE step"),
    Field("noise_key", UID, ("D",), "1", "episode's noise_key and the decision's number"),
    Field(
        "chain",
        "float32",
        ("D", "K+1", "H", "Z"),
        "1",
        "latent actions from noise to chunk",
        optional=True,
    ),
    Field("tokens", "int32", ("D", "W"), "1", "language tokens, padded"),
    Field("token_mask", "bool", ("D", "W"), "1", "True where a token is not padding"),
    Field("obs_hash", SHA, ("D",), "1", "SHA-256 of the policy's input", fill=""),
    Field("policy_ms", "float64", ("D",), "ms", "time of the call", fill=nan, wall_clock=True),
)

GROUPS = (
    Field("update", "int32", ("R",), "1", "training update"),
    Field("group", "int32", ("R",), "1", "group within the update"),
    Field("attempt", "int32", ("R",), "1", "how often it had been drawn before", fill=0),
    Field("policy_version", "int32", ("R",), "1", "row of policies/ that acted"),
    Field("task_id", "int32", ("R",), "1", "task of all members"),
    Field("init_state", "int32", ("R",), "1", "initial state of all members"),
    Field("scene_seed", "int64", ("R",), "1", "scene of all members"),
    Field("n_members", "int32", ("R",), "1", "episodes that finished (G when none failed)"),
    Field("n_success", "int32", ("R",), "1", "of which solved the task"),
    Field("return_mean", "float64", ("R",), "1", "over the members", fill=nan),
    Field("return_std", "float64", ("R",), "1", "over the members", fill=nan),
    Field("accepted", "bool", ("R",), "1", "used for the update"),
    Field("reason", "text128", ("R",), "1", "why it was not", fill=""),
)

ADVANTAGES = (
    Field("uid", UID, ("R",), "1", "uid of the episode"),
    Field("update", "int32", ("R",), "1", "training update it was used in"),
    Field("group", "int32", ("R",), "1", "group within the update"),
    Field("member", "int32", ("R",), "1", "place within the group"),
    Field("return", "float64", ("R",), "1", "the episode's return"),
    Field("advantage", "float64", ("R",), "1", "as it entered the loss"),
)

UPDATES = (
    Field("update", "int32", ("R",), "1", "number of the update"),
    Field("policy_version", "int32", ("R",), "1", "row of policies/ it made"),
    Field("n_episodes", "int32", ("R",), "1", "episodes in the loss"),
    Field("n_decisions", "int64", ("R",), "1", "decisions in the loss"),
    Field("n_groups", "int32", ("R",), "1", "groups collected"),
    Field("n_groups_accepted", "int32", ("R",), "1", "groups in the loss"),
    Field("success_rate", "float64", ("R",), "1", "of all collected episodes", fill=nan),
    Field(
        "first_ratio_max_abs_dev",
        "float64",
        ("R",),
        "1",
        "largest |ratio - 1| before the first step; 0 when collection and training agree",
        fill=nan,
    ),
    Field("ratio_mean", "float64", ("R",), "1", "new over old likelihood", fill=nan),
    Field("ratio_max", "float64", ("R",), "1", "its largest value", fill=nan),
    Field("approx_kl", "float64", ("R",), "nat", "estimated divergence from the old", fill=nan),
    Field("clip_fraction", "float64", ("R",), "1", "share of clipped ratios", fill=nan),
    Field("ess", "float64", ("R",), "1", "effective sample size over samples", fill=nan),
    Field("policy_loss", "float64", ("R",), "1", "mean over mini-batches", fill=nan),
    Field("grad_norm", "float64", ("R",), "1", "before clipping", fill=nan),
    Field("lr", "float64", ("R",), "1", "learning rate", fill=nan),
    Field("wall_s", "float64", ("R",), "s", "time it took", fill=nan, wall_clock=True),
)

OBJECTS = (
    Field("step", "int64", ("R",), "1", "row in steps/"),
    Field("object", "int16", ("R",), "1", "index into the attribute `names` of objects/"),
    Field("pos", "float64", ("R", "3"), "m", "position, world", fill=nan),
    Field("quat", "float64", ("R", "4"), "1", "orientation, xyzw, world", fill=nan),
    Field("joint", "float64", ("R",), "m or rad", "joint position of a fixture", fill=nan),
)

FRAMES = (
    Field("step", "int64", ("R",), "1", "row in steps/"),
    Field("offset", "int64", ("R",), "1", "first entry in data", derived=True),
    Field("length", "int64", ("R",), "1", "entries in data", derived=True),
    Field("data", "uint8", ("B",), "1", "lossless PNG files one after the other"),
)

SIM_STATE = (
    Field("step", "int64", ("R",), "1", "row in steps/"),
    Field("offset", "int64", ("R",), "1", "first entry in data", derived=True),
    Field("length", "int64", ("R",), "1", "entries in data", derived=True),
    Field(
        "data",
        "float64",
        ("B",),
        "mixed",
        "MuJoCo states before each step; the last step of an episode brings also the one after it",
    ),
)

ACTIVATIONS = (
    Field("decision", "int64", ("D",), "1", "row in decisions/", derived=True),
    Field("values", "float16", ("D", "…", "N"), "1", "activations; axes in the attribute `dims`"),
    Field("n", "int64", ("N",), "1", "finite values, per unit", derived=True),
    Field("mean", "float64", ("N",), "1", "their mean", derived=True),
    Field("m2", "float64", ("N",), "1", "their sum of squared deviations", derived=True),
    Field("overflow", "int64", ("1",), "1", "finite values too large for dtype", derived=True),
)

TABLES = {
    "policies": POLICIES,
    "episodes": EPISODES,
    "steps": STEPS,
    "decisions": DECISIONS,
    "groups": GROUPS,
    "advantages": ADVANTAGES,
    "updates": UPDATES,
}
"""The tables every file has, in the order they are created."""

OPTIONAL_TABLES = {
    "activations/<site>": ACTIVATIONS,
    "objects": OBJECTS,
    "frames/<camera>": FRAMES,
    "sim_state": SIM_STATE,
}


def fields_of(table: str) -> tuple[Field, ...]:
    """Return the columns of a table by its path, such as "frames/wrist"; () if unknown."""
    if table in TABLES:
        return TABLES[table]
    group, _, name = table.partition("/")
    known = {"activations": "<site>", "frames": "<camera>"}.get(group)
    place = f"{group}/{known}" if known and name and "/" not in name else table
    return OPTIONAL_TABLES.get(place, ())


def episode_uid(run_id: str, update: int, group: int, attempt: int, member: int) -> str:
    """Return the unique name of an episode."""
    return f"{run_id}/u{update:05d}/g{group:04d}/a{attempt:02d}/m{member:03d}"


def missing(field: Field) -> str:
    """Say what stands for "not known" in a column; empty when the column is always known."""
    if field.fill is None:
        return ""
    return "empty" if field.text_bytes else {"nan": "NaN"}.get(str(field.fill), str(field.fill))


def markdown_table(fields: tuple[Field, ...]) -> str:
    """Return the columns of one table as Markdown."""
    lines = ["| column | type | axes | unit | missing | content |", "|---|---|---|---|---|---|"]
    for field in fields:
        doc = field.doc
        if field.wall_clock:
            doc += " (wall clock)"
        if field.optional:
            doc += " (optional)"
        cells = (f"`{field.name}`", field.dtype, ", ".join(field.dims), field.unit, missing(field))
        doc = doc.replace("|", "\\|")
        lines.append(f"| {' | '.join(cells)} | {doc} |")
    return "\n".join(lines)


def markdown() -> str:
    """Return every table of the format as Markdown, one section each."""
    sections = (
        f"### `{name}/`\n\n{markdown_table(fields)}\n"
        for name, fields in (TABLES | OPTIONAL_TABLES).items()
    )
    return "\n".join(sections)


if __name__ == "__main__":
    sys.stdout.write(markdown())
