"""A run's state: what a checkpoint holds of it, and how a run goes on from it."""

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from hypvl import distributed
from hypvl.data.loader import Loader
from hypvl.errors import CheckpointError, ConfigError
from hypvl.models.checkpoint_io import load_checkpoint
from hypvl.models.weights import load_weights
from hypvl.training.checkpoint import random_state, restore_random_state
from hypvl.training.compatibility import saved_config
from hypvl.training.hooks.metrics import Metrics, bad_everywhere
from hypvl.training.loop import Trainer
from hypvl.training.optim import names_as_before

NEEDED = ("model", "objective", "optimizer", "scheduler", "scaler", "rng", "data", "iteration")
_NEW_RUN = "start a new run with train.init_checkpoint set to it"


@dataclasses.dataclass
class TrainState:
    """What a run is made of at one moment.

    Args:
        trainer: Model, objective, optimizer, schedule and scaler.
        loader: Position in the data, and what of it was bad.
        metrics: What was seen since the last record.
        config: The resolved config as YAML text.
        provenance: Where the run comes from.
    """

    trainer: Trainer
    loader: Loader
    metrics: Metrics
    config: str = ""
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a checkpoint holds (a collective)."""
        trainer = self.trainer
        return {
            "model": trainer.learner.model.state_dict(),
            "objective": trainer.learner.objective.state_dict(),
            "optimizer": trainer.optimizer.state_dict(),
            "optimizer_parameters": self._optimized(),
            "scheduler": trainer.scheduler.state_dict(),
            "scaler": trainer.scaler.state_dict(),
            "rng": random_state(),
            "data": {
                **self.loader.state(trainer.consumed),
                "bad_samples": bad_everywhere(self.loader.bad).state_dict(),
            },
            "metrics": self.metrics.state(),
            "iteration": trainer.iteration,
            "config": self.config,
            "provenance": self.provenance,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint that :func:`read_state` gave.

        Of the optimizer only moments and step counts are restored, of the schedule only its step: rates, decay, betas
        and epsilon are those of the config that runs now.

        Raises:
            CheckpointError: when model, objective or optimizer do not fit.
            ConfigError: for fp16 where the run had no loss scaler.
            DataError: when seed, batch or data are others.
        """
        trainer = self.trainer
        load_weights(trainer.learner.model, dict(state), positions="exact")
        try:
            trainer.learner.objective.load_state_dict(state["objective"])
        except RuntimeError as error:
            raise CheckpointError(
                f"--resume: the objective of the checkpoint keeps another state than this one "
                f"({' '.join(str(error).split())}); restore train.objective, or {_NEW_RUN}."
            ) from error
        self._load_optimizer(state)
        set_step(trainer.scheduler, int(state["scheduler"]["last_epoch"]))
        if trainer.scaler.is_enabled():
            if not state["scaler"]:
                raise ConfigError(
                    "--resume: train.amp is fp16 now, but the run had no loss scaler; use the precision it had, or "
                    f"{_NEW_RUN}."
                )
            trainer.scaler.load_state_dict(state["scaler"])
        self.loader.check_resume(state["data"])
        if distributed.is_main():
            self.loader.bad.load_state_dict(state["data"]["bad_samples"])
        self.metrics.load_state(state.get("metrics", ()))  # earlier versions have none
        restore_random_state(state["rng"])

    def _optimized(self) -> list[str]:
        """Names of the optimizer's parameters, in the order of its state."""
        names = {id(parameter): name for name, parameter in self.trainer.learner.named_parameters()}
        return [names[id(p)] for group in self.trainer.optimizer.param_groups for p in group["params"]]

    def _load_optimizer(self, state: Mapping[str, Any]) -> None:
        saved, names = state["optimizer"], self._optimized()
        before = state.get("optimizer_parameters")
        if before is None:
            before = self._names_of_earlier_version(state)
        if gone := sorted(set(before) ^ set(names)):
            raise CheckpointError(
                f"--resume: the run trained other parameters than this config ({_some(gone)} only one of them); "
                f"restore optim.parameters.trainable and .frozen, and what is learned, or {_NEW_RUN}."
            )
        index = {name: i for i, name in enumerate(before)}
        moments = {i: saved["state"][index[n]] for i, n in enumerate(names) if index[n] in saved["state"]}
        optimizer = self.trainer.optimizer
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})

    def _names_of_earlier_version(self, state: Mapping[str, Any]) -> list[str]:
        """Checkpoints had no names: the order of the parameters follows from the config in them."""
        config = saved_config(state)
        asked = config.get("optim", {}).get("parameters", {}) if config is not None else {}
        groups = names_as_before(self.trainer.learner, exclude=asked.get("exclude"), lr=asked.get("lr"))
        parameters = dict(self.trainer.learner.named_parameters())
        names = [name for group in groups for name in group]
        saved = state["optimizer"]
        sizes = [len(group["params"]) for group in saved["param_groups"]]
        fits = sizes == [len(group) for group in groups] and all(
            moment.dim() == 0 or moment.shape == parameters[names[i]].shape
            for i, moments in saved["state"].items()
            for moment in moments.values()
            if isinstance(moment, Tensor)
        )
        if not fits:
            raise CheckpointError(
                f"--resume: the optimizer of the checkpoint has groups of {sizes} parameters, this config others; "
                f"restore optim.parameters and what is learned, or {_NEW_RUN}."
            )
        return names


def read_state(path: Path) -> dict[str, Any]:
    """A checkpoint, if it is one of a run.

    Raises:
        CheckpointError: otherwise.
    """
    state = load_checkpoint(path)
    if missing := set(NEEDED) - set(state):
        raise CheckpointError(
            f"{path}: has no {', '.join(sorted(missing))}, so training cannot continue from it; {_NEW_RUN}."
        )
    return state


def set_step(scheduler: LRScheduler, step: int) -> None:
    """Let a new schedule stand where ``step`` steps have brought it, with the rates that it says there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no optimizer stepped before it
        if isinstance(scheduler, LambdaLR):  # its rates are a function of the step
            scheduler.last_epoch = step - 1
            scheduler.step()
            return
        while scheduler.last_epoch < step:
            scheduler.step()


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
