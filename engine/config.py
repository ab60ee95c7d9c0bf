"""What a recording is made of, validated before anything heavy starts."""

from dataclasses import dataclass, fields

from traces.errors import UnknownName, UserError

EVALUATION_SCENES = 1000  # scene seeds 0 to 999; training uses 10,000 and up
KEEP = ("frames", "sim", "base-log-prob")


@dataclass(frozen=True)
class RecordConfig:
    """One recording: every condition runs the same episodes."""

    suite: str = "tabletop"
    task_id: int = 0
    policy: str = "smolvla-tabletop"
    episodes: int = 20
    """episodes per condition, so pairs when there is a baseline"""
    seed: int = 0
    """first scene seed, and the run seed of the noise"""
    replan: int = 1
    """control steps between policy calls"""
    noise_level: float = 0.5
    """a of the flow-SDE; 0 is the deterministic ODE, without log-probabilities"""
    workers: int = 2
    """environment processes; changes no byte"""
    video: str = ""
    """mp4 or gif: films the first episodes of every condition"""
    capture: tuple[str, ...] = ("standard",)
    """what is recorded inside the policy: presets and sites, see `presets`"""
    keep: tuple[str, ...] = ()
    """what else is kept: frames, the policy's own pictures at every decision, lossless; sim, the
    simulator's state at every step; base-log-prob, of steered decisions under the unsteered policy
    (a second pass each)"""
    out: str = "traces"
    """folder of the traces"""
    shard_episodes: int = 0
    """episodes after which a trace is closed and the next shard begins; 0 is no limit"""
    shard_bytes: int = 2**30
    """bytes after which, likewise"""
    shard_seconds: float = 600.0
    """seconds after which, likewise"""

    @property
    def keeps_base(self) -> bool:
        """Whether steered decisions are scored under the unsteered policy, too."""
        return "base-log-prob" in self.keep

    @classmethod
    def from_dict(cls, values: dict) -> "RecordConfig":
        """Read what `dataclasses.asdict` wrote, lists for tuples; unknown keys are ignored."""
        known = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in known.items()})

    def __post_init__(self) -> None:
        for name in ("shard_episodes", "shard_bytes", "shard_seconds"):
            _at_least(name, getattr(self, name), 0)
        _at_least("episodes", self.episodes, 1)
        _at_least("replan", self.replan, 1)
        _at_least("workers", self.workers, 1)
        _at_least("seed", self.seed, 0)
        if self.seed + self.episodes > EVALUATION_SCENES:
            raise UserError(
                f"seed {self.seed} with {self.episodes} episodes leaves the evaluation scenes "
                f"(0 to {EVALUATION_SCENES - 1}); seed + episodes must be at most "
                f"{EVALUATION_SCENES}"
            )
        if unknown := set(self.keep) - set(KEEP):
            raise UnknownName("thing to keep", min(unknown), KEEP)
        if self.video not in ("", "mp4", "gif"):
            raise UserError(f"video {self.video!r}: expected mp4 or gif")


def _at_least(name: str, value: float, least: int) -> None:
    if not value >= least:
        raise UserError(f"{name} must be at least {least}, got {value}")
