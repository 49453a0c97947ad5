"""The settings of a training run: `train` of its config, checked as a whole before anything is built.

Every key of `train` is a field here, with its default; a key that a config lacks has that default.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hypvl.checks import closest, number, one_of, whole_number
from hypvl.errors import ConfigError
from hypvl.losses.ring import Gather
from hypvl.models.positions import Positions

Amp = Literal["auto", "bf16", "fp16", "fp32", False]
WandbMode = Literal["disabled", "online", "offline"]
Parallel = Literal["ddp", "fsdp"]
Mode = Literal["max", "min"]
_SEED_MAX = 2**62  # room for what is added to it, one number for each rank
_Section = TypeVar("_Section", bound="_Checked")


class _Checked:
    """Settings whose values are replaced by the values that their checks return."""

    def _check(self, **checked: Any) -> None:
        for name, value in checked.items():
            object.__setattr__(self, name, value)


@dataclasses.dataclass(frozen=True)
class GradCacheConfig(_Checked):
    """Gradient caching."""

    micro_batch: int | None = None  # rows that an encoder sees at once, >= 1; None = all

    def __post_init__(self) -> None:
        if self.micro_batch is not None:
            self._check(micro_batch=whole_number("micro_batch", self.micro_batch, least=1))


@dataclasses.dataclass(frozen=True)
class AuditConfig(_Checked):
    """The audit of the geometry while it trains."""

    every: int = 0  # steps between audits; 0 = none
    samples: int = 512  # pairs that are looked at, >= 2
    aperture_factor: float = 1.0  # of the cones, > 0

    def __post_init__(self) -> None:
        self._check(
            every=whole_number("every", self.every, least=0),
            samples=whole_number("samples", self.samples, least=2),
            aperture_factor=number("aperture_factor", self.aperture_factor, above=0),
        )


@dataclasses.dataclass(frozen=True)
class EvaluateConfig(_Checked):
    """Evaluations of the model while it trains."""

    every: int = 0  # steps between evaluations; 0 = none
    config: str | None = None  # the suite: a file, or the name of one in configs/, such as "eval_demo"
    only: Sequence[str] | None = None  # names of its evaluations; None = all
    overrides: Sequence[str] | None = None  # of the suite, as on a command line: ["roots.eval=/data/eval"]

    def __post_init__(self) -> None:
        self._check(every=whole_number("every", self.every, least=0))
        if self.config is not None:
            _text("config", self.config)
        elif self.every:
            raise ValueError(
                f"config: got None with every={self.every}; expected a suite, such as 'configs/eval_demo.py'."
            )
        if self.only is not None:
            self._check(only=_texts("only", self.only))
            if not self.only:
                raise ValueError("only: got an empty list; expected names of evaluations, or null for all.")
        if self.overrides is not None:
            self._check(overrides=_texts("overrides", self.overrides))


@dataclasses.dataclass(frozen=True)
class KeepBestConfig(_Checked):
    """The checkpoint with the best value of a metric."""

    metric: str | None = (
        None  # "<evaluation>/<metric>": "scenes_shape/top1_accuracy"; None = no such checkpoint
    )
    mode: Mode = "max"  # whether the greatest or the least value is the best

    def __post_init__(self) -> None:
        one_of("mode", self.mode, Mode)
        if self.metric is not None and "/" not in _text("metric", self.metric).strip("/"):
            raise ValueError(
                f"metric: got {self.metric!r}; expected '<evaluation>/<metric>', such as 'imagenet/top1_accuracy'."
            )


@dataclasses.dataclass(frozen=True)
class DDPConfig(_Checked):
    """How processes work together."""

    static_graph: bool = True  # the same parameters get gradients in every step
    broadcast_buffers: bool = False  # every forward pass starts from the buffers of rank 0
    fp16_compression: bool = True  # gradients travel in the 16 bits of the forward pass, where it has 16

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            one_of(field.name, getattr(self, field.name), (True, False))


@dataclasses.dataclass(frozen=True)
class WandbConfig(_Checked):
    """Weights & Biases."""

    mode: WandbMode = "disabled"
    project: str = "hypvl"
    name: str | None = None  # of the run; None = that of its folder

    def __post_init__(self) -> None:
        if self.mode in (False, "off"):  # YAML reads `off` as false
            self._check(mode="disabled")
        one_of("mode", self.mode, WandbMode)
        _text("project", self.project)
        if self.name is not None:
            _text("name", self.name)


@dataclasses.dataclass(frozen=True)
class TrainConfig(_Checked):
    """How a run trains; configs/common/train.py says what the settings mean. ValueErrors start with the key."""

    objective: Any  # the config node of the loss terms; it is not checked here
    gather: Gather = "all"  # how loss terms reach the rows of other processes: all at once, or in a ring
    teachers: Any = None  # config nodes of other encoders, by name; None = there are none
    seed: int = 0  # of weights, data order and dropout, >= 0
    num_iterations: int = 120_000  # length of the run in steps, >= 1
    total_batch_size: int = 2048  # samples per step over all processes, >= 1
    accumulate: int = 1  # parts in which the encoders see a process's batch, >= 1
    naive_accumulate: int = 1  # separate losses of a step, averaged, >= 1
    grad_cache: GradCacheConfig = dataclasses.field(default_factory=GradCacheConfig)
    num_workers: int = 4  # processes that read data, for each rank, >= 0
    amp: Amp = "auto"  # precision of the forward pass
    grad_clip_norm: float | None = None  # largest norm of all gradients together, > 0; None = as they are
    parallel: Parallel = "ddp"  # every rank holds all weights, or a part of them
    compile: bool = False  # whether the encoders are compiled
    init_checkpoint: str | None = None  # weights to start from; None = new ones
    #: Patterns of names that the file may lack, ``model.*_head.log_scale``; None = whatever fits is loaded.
    init_missing: Sequence[str] | None = None
    init_positions: Positions = "interpolate"  # how positions of another length are loaded
    checkpoint_period: int = 5000  # steps between checkpoints, >= 1
    keep_checkpoints: int | None = 5  # periodic checkpoints that are retained, >= 1; None = all
    async_checkpoints: bool = False  # whether periodic ones are written while training continues
    log_period: int = 100  # steps between log records, >= 1
    max_skipped_steps: int = 50  # steps in a row without a finite loss and gradients that end the run, >= 1
    timeout_s: float = 1800.0  # seconds for which a rank waits for the others before it ends, > 0
    #: Training samples whose mean embedding is the root where the geometry has none, >= 1.
    root_samples: int = 65_536
    audit: AuditConfig = dataclasses.field(default_factory=AuditConfig)
    evaluate: EvaluateConfig = dataclasses.field(default_factory=EvaluateConfig)
    keep_best: KeepBestConfig = dataclasses.field(default_factory=KeepBestConfig)
    ddp: DDPConfig = dataclasses.field(default_factory=DDPConfig)
    wandb: WandbConfig = dataclasses.field(default_factory=WandbConfig)

    def __post_init__(self) -> None:
        least = {
            "num_iterations": 1, "total_batch_size": 1, "accumulate": 1, "naive_accumulate": 1, "num_workers": 0,
            "checkpoint_period": 1, "log_period": 1, "root_samples": 1,
            "max_skipped_steps": 1,
        }  # fmt: skip
        self._check(
            seed=whole_number("seed", self.seed, least=0, most=_SEED_MAX),
            **{name: whole_number(name, getattr(self, name), least=value) for name, value in least.items()},
        )
        self._check(timeout_s=number("timeout_s", self.timeout_s, above=0))
        if self.keep_checkpoints is not None:
            self._check(keep_checkpoints=whole_number("keep_checkpoints", self.keep_checkpoints, least=1))
        if self.grad_clip_norm is not None:
            self._check(grad_clip_norm=number("grad_clip_norm", self.grad_clip_norm, above=0))
        one_of("amp", self.amp, Amp)
        one_of("gather", self.gather, Gather)
        one_of("parallel", self.parallel, Parallel)
        one_of("compile", self.compile, (True, False))
        one_of("async_checkpoints", self.async_checkpoints, (True, False))
        self._check_sharding()
        if self.init_checkpoint is not None:
            _text("init_checkpoint", self.init_checkpoint)
        if self.init_missing is not None:
            self._check(init_missing=_texts("init_missing", self.init_missing))
        one_of("init_positions", self.init_positions, Positions)
        if self.keep_best.metric is not None and self.evaluate.every == 0:
            raise ValueError(
                f"keep_best.metric: got {self.keep_best.metric!r}, but nothing is evaluated; expected null, or "
                "train.evaluate.every above 0."
            )

    def _check_sharding(self) -> None:
        """Refuse what sharded encoders cannot do."""
        if self.parallel != "fsdp":
            return
        for key, value, asked in (
            ("compile", self.compile, "false: compiled encoders are not sharded"),
            ("amp", self.amp if self.amp == "fp16" else False, "bf16 or fp32: a loss scale is not kept over shards"),
            ("ddp.broadcast_buffers", self.ddp.broadcast_buffers, "false: only DDP sends buffers in every step"),
        ):  # fmt: skip
            if value:
                raise ValueError(
                    f"{key}: got {value!r} with parallel='fsdp'; expected {asked}, or parallel='ddp'."
                )

    @classmethod
    def read(cls, node: Mapping[str, Any] | DictConfig) -> "TrainConfig":
        """The settings of `train` in a config; missing keys have their defaults.

        Raises:
            ConfigError: for an unknown key (the message names the closest), no objective, or an impossible value.
        """
        settings = _section("train", node)
        if settings.get("objective") is None:
            raise ConfigError(
                "train.objective: missing; expected the loss terms, as in configs/common/objective/clip.py."
            )
        teachers = settings.get("teachers")
        if teachers is not None and not isinstance(teachers, Mapping | DictConfig):
            raise ConfigError(
                f"train.teachers: got {teachers!r}; expected teachers by name, as in hypvl docs training."
            )
        for name in [name for name in _SECTIONS if name in settings]:
            if settings[name] is None:  # null = all defaults
                del settings[name]
            else:
                settings[name] = _build(_SECTIONS[name], f"train.{name}", settings[name])
        return _build(cls, "train", settings)

    @classmethod
    def with_defaults(cls, node: Mapping[str, Any]) -> dict[str, Any]:
        """Plain settings, unchecked, with the default of every key that is missing or a section that is null."""
        given = dict(node)
        full = dataclasses.asdict(cls(objective=None)) | given
        for name, section in _SECTIONS.items():
            asked = given.get(name)
            full[name] = dataclasses.asdict(section()) | (asked if isinstance(asked, Mapping) else {})  # type: ignore[call-overload]  # a dataclass
        return full


@dataclasses.dataclass(frozen=True)
class Accumulation:
    """How the batch of a step is divided: ``train.grad_cache``, ``.accumulate`` and ``.naive_accumulate``."""

    #: Rows that an encoder sees at once, with the gradients of the whole batch; None = all.
    micro_batch: int | None = None
    naive_parts: int = 1  # batches whose losses, each on its own, are averaged

    @property
    def divides(self) -> bool:
        """Whether a step has more than one backward pass."""
        return self.micro_batch is not None or self.naive_parts > 1

    def describe(self) -> str:
        """A line for the log."""
        if self.naive_parts > 1:
            return f"naive accumulation: {self.naive_parts} separate losses per step, averaged"
        return f"gradient caching: encoders see {self.micro_batch} rows at once, the loss all of them"

    @classmethod
    def choose(cls, settings: TrainConfig, *, world_size: int) -> "Accumulation":
        """The division that the settings ask for. Raises ConfigError for settings that exclude each other."""
        micro_batch = settings.grad_cache.micro_batch
        accumulate, naive = settings.accumulate, settings.naive_accumulate
        asked = {
            "grad_cache.micro_batch": micro_batch is not None,
            "accumulate": accumulate > 1,
            "naive_accumulate": naive > 1,
        }
        both = [f"train.{name}" for name, there in asked.items() if there]
        if len(both) > 1:
            raise ConfigError(
                f"{' and '.join(both)}: both are set, but each divides the batch of a step; keep one of them."
            )
        if both and world_size > 1 and settings.ddp.broadcast_buffers:
            raise ConfigError(
                f"{both[0]}: set together with train.ddp.broadcast_buffers=true, but DDP takes no part in a step of "
                "several backward passes; turn one of them off."
            )
        total = settings.total_batch_size
        if total % world_size:
            raise ConfigError(
                f"train.total_batch_size: got {total} for {world_size} processes; expected a multiple of {world_size}."
            )
        local = total // world_size
        if accumulate > 1:
            if accumulate > local:
                raise ConfigError(
                    f"train.accumulate: got {accumulate}, but a process has {local} samples per step "
                    f"(train.total_batch_size={total}); expected at most so many parts."
                )
            micro_batch = -(-local // accumulate)
        if naive > 1 and total % (world_size * naive):
            raise ConfigError(
                f"train.naive_accumulate: got {naive} with train.total_batch_size={total} on {world_size} processes; "
                f"expected a batch that is a multiple of {world_size * naive}."
            )
        return cls(micro_batch, naive)


_SECTIONS: Mapping[str, type[_Checked]] = {
    "grad_cache": GradCacheConfig, "audit": AuditConfig, "evaluate": EvaluateConfig, "keep_best": KeepBestConfig,
    "ddp": DDPConfig, "wandb": WandbConfig,
}  # fmt: skip


def _section(path: str, node: Any) -> dict[str, Any]:
    """The entries of a mapping, references resolved; objective and teachers stay config nodes."""
    if not isinstance(node, Mapping | DictConfig):
        raise ConfigError(f"{path}: got {node!r}; expected a mapping of settings.")
    entries: dict[str, Any] = {}
    for key in node:
        try:
            value = node[key]
            plain = str(key) not in ("objective", "teachers") and OmegaConf.is_config(value)
            entries[str(key)] = OmegaConf.to_container(value, resolve=True) if plain else value
        except OmegaConfBaseException as error:
            reason = str(error).split("\n", maxsplit=1)[0]
            raise ConfigError(f"{path}.{key}: cannot be resolved: {reason}.") from error
    return entries


def _build(section: type[_Section], path: str, node: Any) -> _Section:
    """The section, with its place in every message."""
    settings = _section(path, node)
    known = [field.name for field in dataclasses.fields(section)]  # type: ignore[arg-type]  # its subclasses are
    for key in settings:
        if key not in known:
            near = closest(key, known, cutoff=0.0)
            raise ConfigError(f"unknown key '{path}.{key}': the closest existing key is '{path}.{near}'.")
    try:
        return section(**settings)
    except ValueError as error:
        raise ConfigError(f"{path}.{error}") from error


def mapping_at(cfg: DictConfig, path: str, *, above: str = "") -> DictConfig:
    """A mapping that a training config must have; ``above`` is where ``cfg`` lies."""
    node = OmegaConf.select(cfg, path)
    if not isinstance(node, DictConfig):
        raise ConfigError(
            f"{above}{path}: got {node!r}; expected a mapping, as in the files of configs/common/."
        )
    return node


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name}: got {value!r}; expected a text that is not empty, or null.")
    return value


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        kind = "the text " if isinstance(value, str) else ""
        raise ValueError(f"{name}: got {kind}{value!r}; expected a list of names, or null.")
    return tuple(_text(f"{name}.{i}", item) for i, item in enumerate(value))
