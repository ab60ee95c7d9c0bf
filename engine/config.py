"""What a recording and a training run are made of, validated before anything heavy starts."""

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
    steps: int = 0
    """K, denoising steps; 0: the policy's own"""
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
        _at_least("steps", self.steps, 0)
        _at_least("workers", self.workers, 1)
        _at_least("seed", self.seed, 0)
        _check_scenes(self.seed, self.episodes)
        if unknown := set(self.keep) - set(KEEP):
            raise UnknownName("thing to keep", min(unknown), KEEP)
        if self.video not in ("", "mp4", "gif"):
            raise UserError(f"video {self.video!r}: expected mp4 or gif")


@dataclass(frozen=True)
class EvalConfig:
    """One evaluation, of a policy and of its base on the same scenes."""

    suite: str = "tabletop"
    policy: str = "smolvla-tabletop"
    base: str = "smolvla-tabletop"
    """policy to compare with, or none"""
    episodes: int = 100
    seed: int = 0
    """first scene seed"""
    replan: int = 10
    steps: int = 5
    """K, denoising steps"""
    workers: int = 2
    slots: int = 32

    def __post_init__(self) -> None:
        for name in ("episodes", "replan", "steps", "workers", "slots"):
            _at_least(name, getattr(self, name), 1)
        _at_least("seed", self.seed, 0)
        _check_scenes(self.seed, self.episodes)


def _check_scenes(seed: int, episodes: int) -> None:
    if seed + episodes > EVALUATION_SCENES:
        raise UserError(
            f"seed {seed} with {episodes} episodes leaves the evaluation scenes "
            f"(0 to {EVALUATION_SCENES - 1}); seed + episodes must be at most {EVALUATION_SCENES}"
        )


def _at_least(name: str, value: float, least: int) -> None:
    if not value >= least:
        raise UserError(f"{name} must be at least {least}, got {value}")


def _one_of(kind: str, value: str, names: tuple[str, ...]) -> None:
    if value not in names:
        raise UnknownName(kind, value, names)


TRAINING_SCENES = range(10_000, 100_000)
"""scene seeds of training; evaluation lies below, behaviour cloning above"""

LEARNING_RATES = {"flow-sde": 1e-4, "flow-noise": 1e-4, "gaussian": 7e-5}
"""The less noise a step has, the smaller the change of its mean that the clip allows."""
LIKELIHOODS = tuple(LEARNING_RATES)
TRAINED = ("expert", "lora", "full")
ADVANTAGES = ("group", "rloo", "state")
RATIOS = ("row", "chunk")
SCENES = ("fresh", "suite")
KEPT_IN_TRAINING = ("frames",)
MIRRORS = ("tensorboard", "wandb", "trackio")


@dataclass(frozen=True)
class TrainConfig:
    """One training run; docs/grpo.md says where each default comes from."""

    suite: str = "tabletop"
    tasks: tuple[int, ...] = (1,)
    """groups take them in turn, or by the curriculum"""
    policy: str = "smolvla-tabletop"
    seed: int = 0
    updates: int = 60

    likelihood: str = "flow-sde"
    steps: int = 4
    """K, denoising steps"""
    noise_level: float = 0.7
    """a of the flow-SDE"""
    correlation: float = 0.0
    """of its noise between neighbouring action rows"""
    stochastic_steps: int = 0
    """neighbouring denoising steps of a decision that are stochastic; 0: all"""
    noise_low: float = 0.16
    """smallest and"""
    noise_high: float = 0.32
    """largest learned standard deviation of `flow-noise`"""
    euler_noise: float = 0.0
    """noise of each Euler step of `gaussian`"""
    replan: int = 10
    """control steps between policy calls"""

    groups: int = 8
    """accepted groups an update"""
    group_size: int = 8
    """G, episodes a group: one scene, different noise"""
    attempts: int = 2
    """rounds of drawing groups until enough of them have variance"""
    scenes: str = "fresh"
    """initial states: fresh ones, or the suite's own, which evaluation uses too"""
    curriculum: bool = False
    """draw tasks, and the suite's initial states, by how undecided their success is"""
    advantage: str = "group"

    train: str = "full"
    """which weights learn: the action expert, low-rank additions everywhere, or all"""
    lora_rank: int = 16
    lr: float | None = None
    """None: that of the likelihood, see `LEARNING_RATES`"""
    warmup: int = 20
    """optimizer steps over which the learning rate rises; Adam's first steps are its largest"""
    lr_end: float = 0.1
    """share of the learning rate that is left at the last update; it falls in the second half"""
    epochs: int = 1
    minibatches: int = 2
    """optimizer steps an epoch"""
    micro_batch: int = 64
    """decisions in memory at once"""
    average: bool = True
    """evaluate and save the running average of the weights rather than the last ones"""
    ratio: str = "row"
    """what has a ratio of its own, and is clipped: each action row, or the chunk as a whole"""
    clip_low: float = 0.2
    clip_high: float = 0.28
    dual_clip: float = 3.0
    kl_beta: float = 0.0
    """weight of the KL divergence to the policy that training began with"""
    grad_clip: float = 1.0

    workers: int = 2
    """environment processes; changes no byte"""
    slots: int = 32
    """episodes that run at the same time"""
    eval_every: int = 10
    """updates between evaluations; 0: only before and after"""
    eval_episodes: int = 100
    """held-out scenes, from seed 0"""
    forgetting: bool = True
    """evaluate the other tasks of the suite when training is over"""
    checkpoint_every: int = 10
    """updates between checkpoints that are kept; the last one always is"""
    traces: int = 0
    """updates between those whose episodes are kept as a trace; 0: none"""
    keep: tuple[str, ...] = ()
    """what else these traces keep: frames, the policy's own pictures at every decision, lossless"""
    mirror: tuple[str, ...] = ()
    """trackers that are shown the metrics, too"""

    def __post_init__(self) -> None:
        _one_of("likelihood", self.likelihood, LIKELIHOODS)
        if self.lr is None:
            object.__setattr__(self, "lr", LEARNING_RATES[self.likelihood])
        for name in ("tasks", "mirror", "keep"):  # lists in config.yaml
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise UserError(f"tasks must be different ones, got {list(self.tasks)}")
        counts = ("updates", "steps", "replan", "groups", "attempts", "epochs", "minibatches")
        for name in (*counts, "micro_batch", "workers", "slots", "eval_episodes", "lora_rank"):
            _at_least(name, getattr(self, name), 1)
        for name in ("eval_every", "traces", "seed", "kl_beta", "warmup", "euler_noise"):
            _at_least(name, getattr(self, name), 0)
        _at_least("checkpoint_every", self.checkpoint_every, 1)
        _at_least("group_size", self.group_size, 2)
        _one_of("part to train", self.train, TRAINED)
        _one_of("level of ratios", self.ratio, RATIOS)
        _one_of("advantage", self.advantage, ADVANTAGES)
        _one_of("choice of scenes", self.scenes, SCENES)
        for name in self.mirror:
            _one_of("mirror", name, MIRRORS)
        for name in self.keep:
            _one_of("thing to keep", name, KEPT_IN_TRAINING)
        if self.keep and not self.traces:
            raise UserError("only traces keep frames: add --traces N, for every Nth update")
        if not 0 < self.noise_level <= 2:
            raise UserError(
                f"noise_level must lie in (0, 2], got {self.noise_level}; without noise there is "
                "no likelihood to train with"
            )
        if not 0 <= self.correlation < 1:
            raise UserError(f"correlation must lie in [0, 1), got {self.correlation}")
        if not 0 <= self.stochastic_steps <= self.steps:
            raise UserError(
                f"stochastic_steps must lie in 0 (all) to {self.steps}, the denoising steps; got "
                f"{self.stochastic_steps}"
            )
        if not 0 < self.noise_low <= self.noise_high:
            raise UserError(
                f"expected 0 < noise_low <= noise_high, got {self.noise_low} and {self.noise_high}"
            )
        for name in ("lr", "grad_clip", "clip_low", "clip_high"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} must be greater than 0, got {getattr(self, name)}")
        if not 0 <= self.lr_end <= 1:
            raise UserError(f"lr_end must lie in [0, 1], got {self.lr_end}")
        if not self.dual_clip > 1:
            raise UserError(f"dual_clip must be greater than 1, got {self.dual_clip}")
        if self.curriculum and self.scenes != "suite" and len(self.tasks) == 1:
            raise UserError(
                "a curriculum needs something to choose from: several tasks (--task 0,1) or scenes "
                "that come again (--scenes suite)"
            )
        if self.advantage == "state" and self.scenes != "suite":
            raise UserError(
                "advantage state needs scenes that come again: add --scenes suite, "
                "or take --advantage rloo"
            )
        _check_scenes(0, self.eval_episodes)

    def is_traced(self, update: int) -> bool:
        """Whether the episodes of an update, from 0, are kept as a trace."""
        return bool(self.traces) and update % self.traces == 0

    @property
    def task_id(self) -> int:
        """The task, or the first of several."""
        return self.tasks[0]
