"""A training run from its config: builds the parts, resumes, trains, saves."""

import dataclasses
import json
import os
import signal
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from omegaconf import DictConfig, OmegaConf
from torch import nn

from hypvl import distributed
from hypvl.checks import whole_number
from hypvl.config import LazyConfig, instantiate
from hypvl.config.plain import to_plain, without_secrets
from hypvl.config.targets import EXTRA_VARIABLE, unlisted_targets
from hypvl.data.loader import Loader
from hypvl.data.sample import check_dataset, prepare_dataset
from hypvl.data.stream import is_stream
from hypvl.data.stream_loader import StreamLoader, open_loader
from hypvl.errors import CheckpointError, ConfigError, StoppedError
from hypvl.io.files import write_atomically
from hypvl.launch import begun_by_this_agent, note_begun
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.hub import build_model
from hypvl.models.weights import load_weights
from hypvl.training.accumulation import GradCache, GradientAverage, check_no_batch_statistics
from hypvl.training.config import Accumulation, EvaluateConfig, TrainConfig, mapping_at
from hypvl.training.data_fit import check_data_fits, check_sample_fits, take_from_model
from hypvl.training.failure import remove_failure, report_failure
from hypvl.training.hooks.audit import LiveAudit
from hypvl.training.hooks.best import BestCheckpoint
from hypvl.training.hooks.checkpoints import Checkpoints
from hypvl.training.hooks.episodes import Episodes, check_episodes, episodic_terms
from hypvl.training.hooks.evaluation import Evaluation, Suite, split_metric
from hypvl.training.hooks.health import Stalls, TellOthers
from hypvl.training.hooks.heartbeat import Heartbeat
from hypvl.training.hooks.memory import ReleaseMemory
from hypvl.training.hooks.metrics import BAD_SAMPLES_NAME, FinalShare, Metrics
from hypvl.training.hooks.sinks import (
    ConsoleLine,
    JsonLines,
    Sink,
    TensorBoard,
    Wandb,
    log_to_console,
    log_to_file,
)
from hypvl.training.hooks.skipped import SKIPPED_STEPS_NAME, SkippedSteps
from hypvl.training.loop import Hook, Trainer, exit_code
from hypvl.training.optim import build_optimizer
from hypvl.training.parallel import shard_
from hypvl.training.provenance import provenance
from hypvl.training.random_state import seed_everything
from hypvl.training.resume import read_resumed
from hypvl.training.run_folder import METRICS_NAME, RunFolder
from hypvl.training.state import (
    TrainState,
    check_compatible,
    log_changes,
    saved_config,
)
from hypvl.training.step import Learner, Precision, mean_embedding
from hypvl.training.summary import summary_table
from hypvl.training.teachers import FrozenTeacher, Teacher


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What the command line adds to the config."""

    output_dir: Path
    resume: bool = False  # continue from the newest good checkpoint there
    checkpoint_period: int | None = None  # None = the config's
    log_period: int | None = None
    #: Makes the suite of ``train.evaluate``, for which training itself knows no evaluator; None = there is none.
    make_suite: Callable[[EvaluateConfig], Suite] | None = None


def run_training(cfg: DictConfig, options: RunOptions) -> None:
    """Train a config; called once per process.

    Raises:
        ConfigError: for values that do not fit together.
        CheckpointError: when resuming is not possible.
        DataError: when data is missing or too much of it is bad.
        StoppedError: when SIGTERM, SIGUSR1 or Ctrl-C ended the run early; its state is saved.
    """
    folder = options.output_dir
    again, attempt = distributed.from_main(lambda: (begun_by_this_agent(folder), uuid.uuid4().hex))
    with RunFolder(folder, resume=options.resume or again, attempt=attempt) as place:
        try:
            _run(cfg, options, place)
        except (ConfigError, StoppedError):  # the command was wrong, or all is well
            raise
        except Exception as error:
            # A checkpoint that was read and does not fit refuses the command, as a ConfigError does.
            refused = isinstance(error, CheckpointError) and place.ours
            if (place.ours or place.locked) and not refused:
                report_failure(folder, None, error, config=to_plain(cfg, source="config"), attempt=attempt)
            raise


def _run(cfg: DictConfig, options: RunOptions, place: RunFolder) -> None:
    folder = options.output_dir
    cfg = _with_periods(cfg, options)
    settings, optim = TrainConfig.read(mapping_at(cfg, "train")), mapping_at(cfg, "optim")
    device = distributed.device()
    plan = Accumulation.choose(settings, world_size=distributed.world_size())
    suite = _suite(settings, options)
    _check_place(folder)
    log_to_console(rank=distributed.rank())
    resumed = read_resumed(place.start)
    place.ours = distributed.from_main(lambda: place.locked)
    changes = [] if resumed is None else check_compatible(saved_config(resumed), cfg)

    seed_everything(settings.seed)  # the same weights on every rank
    model = build_model(cfg, source="config", weights_follow=resumed is not None)
    started_from = "started from new weights"
    if settings.init_checkpoint is not None and resumed is None:
        started_from = _start_from(model, settings)
    learner = _learner(model, settings).to(device)
    check_episodes(learner, settings.total_batch_size)
    precision = Precision.choose(settings.amp, device)
    wire = precision.wire(compress=settings.ddp.fp16_compression)
    sharding = None
    if settings.parallel == "fsdp" and distributed.world_size() > 1:
        sharding = shard_(learner, dtype=precision.dtype, wire=wire)
    optimizer, scheduler = build_optimizer(optim, learner)
    scaler = precision.make_scaler()
    learner.train()
    if plan.micro_batch is not None:
        check_no_batch_statistics(learner)

    dataset = instantiate(cfg.dataset)
    check_dataset(dataset)
    if is_stream(dataset) and (terms := episodic_terms(learner)):
        raise ConfigError(
            f"train.objective.terms.{next(iter(terms))}: reads the samples of an episode before training on them, "
            "which a stream does not give twice; name indexed shards (ImageTextShards)."
        )
    take_from_model(model, dataset)
    check_data_fits(model, dataset)
    distributed.from_main(lambda: prepare_dataset(dataset))
    distributed.from_main(lambda: check_sample_fits(learner, dataset, seed=settings.seed))
    for name, teacher in learner.get_teachers().items():
        teacher.check_data(dataset.fingerprint)
        if isinstance(teacher, FrozenTeacher):
            asked = {view.modality for view in learner.objective.views if view.encoder == name}
            where = f"train.teachers.{name}.model"
            check_data_fits(teacher.encoder, dataset, name=where, modalities=asked)
    iteration = int(resumed["iteration"]) if resumed is not None else 0
    loader = _loader(
        settings, dataset, device,
        consumed=iteration * settings.total_batch_size, parts=plan.naive_parts,
    )  # fmt: skip
    seed_everything(settings.seed + 1 + distributed.rank())  # dropout differs between ranks
    average = GradientAverage(wire=wire)
    # The table traces the encoders, which is only possible before they are compiled.
    table = _table(model if sharding is None else sharding.whole_model())
    trainer = Trainer(
        learner=learner,
        module=learner if sharding is not None else _wrap(learner, settings, precision, plan),
        optimizer=optimizer,
        scheduler=scheduler,
        loader=loader,
        precision=precision,
        scaler=scaler,
        num_iterations=settings.num_iterations,
        global_batch_size=settings.total_batch_size,
        epoch_size=len(dataset),
        clip_norm=settings.grad_clip_norm,
        cache=None if plan.micro_batch is None else GradCache(plan.micro_batch, average=average),
        naive_parts=plan.naive_parts,
        average=average,
        sharding=sharding,
        iteration=iteration,
        data_timeout_s=settings.timeout_s * 2 / 3,  # the others still wait then
    )
    state = TrainState(
        trainer, loader, Metrics(period=settings.log_period, bad=loader.bad, taken=loader.taken)
    )
    if resumed is not None:
        state.load_state_dict(resumed)
        started_from = f"resumed at iteration {iteration}"
        if iteration >= trainer.num_iterations:
            started_from = f"already at {iteration} of {trainer.num_iterations} iterations: no more to train"
    del resumed  # its weights and moments are copied: free the memory

    def begin() -> None:
        place.make()  # from here on something is written
        remove_failure(folder)
        note_begun(folder)

    distributed.from_main(begin)
    place.ours = True
    log_to_file(folder, rank=distributed.rank())
    config_text = LazyConfig.to_shown_yaml(cfg)
    state.config = config_text
    state.provenance = origin = provenance(
        seed=settings.seed, data_fingerprint=dataset.fingerprint, config_text=config_text
    )
    if distributed.is_main():
        write_atomically(folder / "config.yaml", LazyConfig.to_data_yaml(cfg))  # --resume needs all of it
        write_atomically(folder / "provenance.json", json.dumps(origin, indent=2) + "\n")
        logger.info("model\n{}", table)
        logger.info(started_from)
        log_changes(changes)
        _warn_of_unlisted(cfg)
        if plan.divides:
            logger.info(plan.describe())
        logger.info(
            "training on {} x {}, {} samples, precision {}, into {}",
            distributed.world_size(), device, len(dataset), precision.dtype or "fp32", folder,
        )  # fmt: skip
    trainer.hooks = _hooks(cfg, settings, folder, state, suite)
    try:
        with loader:
            trainer.run()
    except Exception as error:
        report_failure(folder, trainer, error, config=to_plain(cfg, source="config"), attempt=place.attempt)
        raise
    stop = trainer.signals.stop
    if stop is not None and not trainer.complete:
        raise StoppedError(_stopped(trainer, stop, folder), exit_code(stop))


def _stopped(trainer: Trainer, stop: signal.Signals, folder: Path) -> str:
    said = f"stopped by {stop.name} at iteration {trainer.iteration} of {trainer.num_iterations}"
    if trainer.iteration == 0:
        return f"{said}, before the first step, so nothing was saved; --resume starts again."
    evaluation = " before its evaluation" if trainer.cut_short else ""
    return f"{said}{evaluation}, which is saved in {folder}; --resume goes on."


def _learner(model: DualEncoder, settings: TrainConfig) -> Learner:
    """The model with its loss terms and teachers; what does not fit is an error of the config."""
    objective = instantiate(settings.objective)
    teachers = {} if settings.teachers is None else instantiate(settings.teachers)
    for name, teacher in teachers.items():
        if not isinstance(teacher, Teacher):
            raise ConfigError(
                f"train.teachers.{name}: builds a {type(teacher).__name__}; expected a teacher, such as EMATeacher."
            )
    try:
        learner = Learner(model, objective, teachers, gather=settings.gather)
        objective.check_batch(settings.total_batch_size // settings.naive_accumulate)
        return learner
    except ValueError as error:
        raise ConfigError(f"train.objective.{error}") from error


def _table(model: DualEncoder) -> str:
    return summary_table(model) if distributed.is_main() else ""


def _warn_of_unlisted(cfg: DictConfig) -> None:
    """Warn at the start of classes off the allow-list, which evaluations of the checkpoints would refuse."""
    for key, target in unlisted_targets(to_plain(cfg, source="config")):
        part = key.partition(".")[0]
        logger.warning(
            "{}: {} is not on the allow-list, so nobody can load this run's checkpoints by the config in them: set "
            '{}={} wherever they are loaded (or, in hypvl/, mark it with @configurable("{}") of hypvl.allowlist)',
            key, target, EXTRA_VARIABLE, target, part,
        )  # fmt: skip


def _with_periods(cfg: DictConfig, options: RunOptions) -> DictConfig:
    """The config with the periods of the command line."""
    cfg = cfg.copy()
    for name in ("checkpoint_period", "log_period"):
        if (value := getattr(options, name)) is not None:
            try:
                mapping_at(cfg, "train")[name] = whole_number(f"--{name.replace('_', '-')}", value, least=1)
            except ValueError as error:
                raise ConfigError(str(error)) from error
    return cfg


def _check_place(folder: Path) -> None:
    """Refuse a folder that cannot be made or written to, before anything is built."""
    there = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not there.is_dir():
        raise ConfigError(f"--output-dir: got {folder}, but {there} is not a folder; name another one.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"--output-dir: got {folder}, but {there} cannot be written to; name another one.")


def _start_from(model: nn.Module, settings: TrainConfig) -> str:
    """Load ``train.init_checkpoint`` into the model; returns a line that tells what was loaded and what was not."""
    allowed = settings.init_missing
    try:
        report = load_weights(
            model,
            str(settings.init_checkpoint),
            strict=allowed is not None,
            allow_missing=[pattern.removeprefix("model.") for pattern in allowed or ()],
            positions=settings.init_positions,
        )
    except ValueError as error:
        raise ConfigError(f"train.init_missing: {str(error).removeprefix('allow_missing: ')}") from error
    return f"started from {report.loaded} tensors of {settings.init_checkpoint}: {report}"


def _suite(settings: TrainConfig, options: RunOptions) -> Suite | None:
    """The suite of ``train.evaluate``; None where it is off. Raises ConfigError for names that it does not have."""
    if settings.evaluate.every == 0:
        return None
    if options.make_suite is None:
        raise ConfigError(
            f"train.evaluate.every: got {settings.evaluate.every}, but the run was given no suite; start it by "
            "hypvl train, or with RunOptions(make_suite=hypvl.cli.suites.TrainingSuite)."
        )
    suite = options.make_suite(settings.evaluate)
    if settings.keep_best.metric is not None:
        split_metric(settings.keep_best.metric, suite.names)
    return suite


def _hooks(
    cfg: DictConfig, settings: TrainConfig, folder: Path, state: TrainState, suite: Suite | None
) -> list[Hook]:
    trainer, loader = state.trainer, state.loader

    def root(trainer: Trainer) -> dict[str, Any]:
        samples = min(settings.root_samples, trainer.epoch_size)  # more would repeat the data
        logger.info("root: mean embedding of {:,} training samples", samples)
        with _loader(settings, loader.dataset, trainer.precision.device, consumed=trainer.consumed) as fresh:
            return {
                "root": mean_embedding(trainer.learner, fresh, samples=samples, model=trainer.whole_model())
            }

    def collect(_: Trainer) -> dict[str, Any]:
        for file in files:
            file.sync()
        return state.state_dict()

    sinks: list[Sink] = []
    files: list[JsonLines] = []
    if distributed.is_main():
        files = [
            JsonLines(folder / name, iteration=trainer.iteration)
            for name in (METRICS_NAME, BAD_SAMPLES_NAME, SKIPPED_STEPS_NAME)
        ]
        sinks = [
            ConsoleLine(trainer.num_iterations),
            files[0],
            TensorBoard(folder / "tensorboard", iteration=trainer.iteration),
        ]
        if settings.wandb.mode != "disabled":
            sinks.append(
                Wandb(
                    mode=settings.wandb.mode,
                    project=settings.wandb.project,
                    name=settings.wandb.name if settings.wandb.name is not None else folder.name,
                    folder=folder,
                    config=without_secrets(OmegaConf.to_container(cfg, resolve=True)),
                    iteration=trainer.iteration,
                )
            )
        state.metrics.bad_file = files[1]
    state.metrics.sinks = sinks
    model = trainer.learner.model
    checkpoints = Checkpoints(
        folder,
        collect=collect,
        period=settings.checkpoint_period,
        keep=settings.keep_checkpoints,
        background=settings.async_checkpoints,
        final_extra=root if model.geometry.root(model.embed_dim) is None else None,
    )
    return [
        *([Heartbeat(folder)] if distributed.is_main() else []),
        Stalls(),
        TellOthers(),
        *_episodes(settings, trainer, loader),
        ReleaseMemory(),  # before the record that says how much there is
        state.metrics,
        *_live_audit(settings, folder, sinks, trainer, files),
        *_evaluation(settings, folder, sinks, state, suite),
        SkippedSteps(
            settings.max_skipped_steps,
            folder=folder,
            save=checkpoints.save_now,
            file=files[2] if files else None,
        ),
        checkpoints,
        FinalShare(loader.bad),  # when the final checkpoint is saved
    ]


def _episodes(settings: TrainConfig, trainer: Trainer, loader: Loader | StreamLoader) -> list[Hook]:
    """The hook of loss terms with episodes; none where there are no such terms."""
    terms = episodic_terms(trainer.learner)
    if not terms:
        return []

    def from_position(consumed: int) -> Loader | StreamLoader:
        return _loader(
            settings, loader.dataset, trainer.precision.device, consumed=consumed, parts=trainer.naive_parts
        )

    return [Episodes(terms, make_loader=from_position, seed=settings.seed)]


def _live_audit(
    settings: TrainConfig, folder: Path, sinks: list[Sink], trainer: Trainer, files: list[JsonLines]
) -> list[Hook]:
    """The hook of ``train.audit``, whose file joins ``files``; none where it is off."""
    audit = settings.audit
    if audit.every == 0:
        return []
    file = [JsonLines(folder / "audit.jsonl", iteration=trainer.iteration)] if distributed.is_main() else []
    files += file
    curves = [sink for sink in sinks if isinstance(sink, (TensorBoard, Wandb))]
    return [
        LiveAudit(
            [*file, *curves],
            owned=file,
            every=audit.every,
            samples=audit.samples,
            aperture_factor=audit.aperture_factor,
        )
    ]


def _evaluation(
    settings: TrainConfig, folder: Path, sinks: list[Sink], state: TrainState, suite: Suite | None
) -> list[Hook]:
    """The hook of ``train.evaluate`` and ``train.keep_best``; none where they are off."""
    if suite is None:
        return []
    best = None
    if settings.keep_best.metric is not None:
        best = BestCheckpoint(
            folder,
            settings.keep_best.metric,
            mode=settings.keep_best.mode,
            collect=lambda _: state.state_dict(),
        )
    records = [sink for sink in sinks if not isinstance(sink, ConsoleLine)]  # the log has a line of its own
    file = next((sink for sink in sinks if isinstance(sink, JsonLines)), None)
    return [
        Evaluation(
            suite, records, every=settings.evaluate.every, metrics=state.metrics, best=best, records=file
        )
    ]


def _loader(
    settings: TrainConfig, dataset: Any, device: torch.device, *, consumed: int, parts: int = 1
) -> Loader | StreamLoader:
    try:
        return open_loader(
            dataset,
            global_batch_size=settings.total_batch_size,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
            num_workers=settings.num_workers,
            seed=settings.seed,
            consumed=consumed,
            accumulate=parts,
            pin_memory=device.type == "cuda",
        )
    except ValueError as error:
        raise ConfigError(f"dataset: {error}") from error


def _wrap(learner: Learner, settings: TrainConfig, precision: Precision, plan: Accumulation) -> nn.Module:
    if settings.compile:
        learner.compile()
    if distributed.world_size() == 1:
        return learner
    if plan.divides:  # its gradients come in parts: GradientAverage takes the mean of their sum, once
        distributed.broadcast_([*learner.parameters(), *learner.buffers()])
        return learner
    ddp = nn.parallel.DistributedDataParallel(
        learner,
        device_ids=[precision.device] if precision.device.type == "cuda" else None,
        broadcast_buffers=settings.ddp.broadcast_buffers,
        static_graph=settings.ddp.static_graph,
        gradient_as_bucket_view=True,
    )
    wire = precision.wire(compress=settings.ddp.fp16_compression)
    if wire is not None:
        from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

        hooks = {
            torch.float16: default_hooks.fp16_compress_hook,
            torch.bfloat16: default_hooks.bf16_compress_hook,
        }
        ddp.register_comm_hook(None, hooks[wire])
    return ddp
