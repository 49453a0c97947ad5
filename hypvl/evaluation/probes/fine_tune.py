"""Fine-tuning: a linear head on the features, trained by SGD together with the image encoder or alone."""

import copy
import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, asdict, astuple, dataclass
from typing import Any, Literal, TypeAlias

import torch
from loguru import logger
from torch import Tensor, nn

from hypvl.allowlist import configurable
from hypvl.checks import one_of, whole_number
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel, count_parameters
from hypvl.errors import DataError, UserError
from hypvl.evaluation.class_metrics import class_probabilities
from hypvl.evaluation.labelled_images import Label, encode_labelled
from hypvl.evaluation.probes.fine_tune_batches import FeatureBatches, ImageBatches, TrainingBatches
from hypvl.evaluation.probes.supervised import Learnt, Plan, Run, SupervisedEvaluator
from hypvl.evaluation.probes.sweep import COARSE_GRID, halving_search
from hypvl.io.progress import counted

#: Learning rates of the published search; :mod:`hypvl.evaluation.probes.sweep` searches the weight decays of each.
LEARNING_RATES: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)

Trainable: TypeAlias = Literal["all", "head"]
Tuning: TypeAlias = Literal["fixed", "swept"]
_NORM_MOMENTUM = 0.1  # torch's


@dataclass(frozen=True)
class Rates:
    """The settings that are searched."""

    learning_rate: float
    weight_decay: float


@configurable("evaluate")
@dataclass
class FineTune(SupervisedEvaluator):
    """Accuracy of a classifier trained by SGD from a model's image encoder.

    The head is a linear layer (weights from N(0, 0.01^2), bias 0) on batch-normalised features without affine
    parameters; the loss is the cross entropy, with several labels an image the binary one of each class. Images are
    resized (shorter side, bicubic) and cropped in the centre, for training as for the test. The learning rate is
    constant and the last epoch counts. A deep copy is trained; the model stays as it is. Any geometry will do.

    ``tuning="fixed"`` trains once with ``learning_rate`` and ``weight_decay`` on training and validation part
    together. ``tuning="swept"`` first trains on the training part, ``sweep_epochs`` each, for every learning rate and
    the weight decays of a halving search; the pair with the best metric on the validation part wins (the lower of
    equal ones). A pair whose training diverges is left out.

    The same seed gives the same numbers on the CPU; a GPU may sum in another order. Each of several processes trains
    the same.

    Args: those of :class:`~hypvl.evaluation.probes.supervised.SupervisedEvaluator`, and
        trainable: ``"all"``, encoder and head, or the ``"head"`` alone, on features encoded once.
        tuning: ``"fixed"``, given rates; ``"swept"``, searched ones.
        learning_rate: For ``"fixed"``, and for ``"swept"`` with one shot, which leaves no validation images.
        weight_decay: Likewise.
        learning_rates: For ``"swept"``.
        weight_decays: For ``"swept"``: the grid.
        halvings: For ``"swept"``: of the grid's steps.
        epochs: Of the final training.
        sweep_epochs: Of each training of the search.
        batch_size: Images per step, >= 2.
        momentum: Of SGD.

    Source: Li et al. 2022, ELEVATER (arXiv 2204.08790), section 4 and its toolkit's settings.
    Differs: the toolkit reports the epoch with the best test accuracy, and validates on the first images of each
        class rather than on drawn ones. The first ten steps of the head's running statistics are plain means, so that
        a few steps of a few shots do not leave them near 0 and 1.
    """

    _: KW_ONLY
    trainable: Trainable = "all"
    tuning: Tuning = "fixed"
    learning_rate: float = 0.1
    weight_decay: float = 1e-6
    learning_rates: Sequence[float] = LEARNING_RATES
    weight_decays: Sequence[float] = COARSE_GRID
    halvings: int = 4
    epochs: int = 50
    sweep_epochs: int = 10
    batch_size: int = 64
    momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("trainable", self.trainable, Trainable)
        one_of("tuning", self.tuning, Tuning)
        whole_number("epochs", self.epochs, least=1)
        whole_number("sweep_epochs", self.sweep_epochs, least=1)
        whole_number("batch_size", self.batch_size, least=2)

    @property
    def chooses(self) -> bool:
        """Whether rates are searched."""
        return self.tuning == "swept"

    def learn(self, model: EvaluableModel, encoder: CachedEncoder, plans: Sequence[Plan]) -> Learnt:
        """Train on each plan and predict the test images."""
        positions = sorted({i for plan in plans for i in plan.both})
        if self.trainable == "head":
            train = encode_labelled(
                encoder, self._images, positions, stage=self.stage, label="training images"
            )
            test = encode_labelled(encoder, self._test_images, stage=self.stage, label="test images")
            batches: TrainingBatches = FeatureBatches(train, test, encoding=encoder.encoding)
        else:
            batches = ImageBatches(
                self._images, self._test_images, positions, stage=self.stage, encoding=encoder.encoding
            )
        runs = [self._run(model, batches, plan) for plan in plans]
        return Learnt(runs, bad=batches.bad_test, bad_training=len(batches.bad_training))

    def _run(self, model: EvaluableModel, batches: TrainingBatches, plan: Plan) -> Run:
        notes: dict[str, Any] = {}
        warnings: list[str] = []
        rates = Rates(float(self.learning_rate), float(self.weight_decay))
        if self.tuning == "swept" and plan.check:
            rates, scores = self._search(model, batches, plan)
            notes["validation_scores"] = scores
        elif self.tuning == "swept":
            warnings.append(
                f"seed {plan.seed}: one image of each class leaves none to choose rates by; they are the fixed ones."
            )
        trained = self._train(model, batches, plan.both, rates, epochs=self.epochs, seed=plan.seed)
        rows = None if trained is None else self._predict(*trained, batches, None)
        if trained is None or rows is None:
            raise UserError(
                f"fine-tuning: became NaN or infinite with {rates}; lower the learning rate, or let it be searched "
                "(tuning=swept). If every rate does, the weights are NaN: evaluate an earlier checkpoint."
            )
        probabilities, places = rows
        full = torch.zeros(len(self._test_images), len(self._classes), dtype=torch.float64)
        full[places] = probabilities
        head = sum(p.numel() for p in trained[1].parameters())
        encoder = 0 if self.trainable == "head" else count_parameters(model, stage=self.stage)[1]
        notes |= {**asdict(rates), "epochs": self.epochs}
        return Run(full, trainable=head + encoder, notes=notes, warnings=warnings)

    def _search(
        self, model: EvaluableModel, batches: TrainingBatches, plan: Plan
    ) -> tuple[Rates, list[list[float | None]]]:
        """The best pair, and rows of learning rate, weight decay, validation score (None: diverged)."""
        table: dict[Rates, float] = {}
        for learning_rate in sorted(map(float, self.learning_rates)):

            def score(decays: Sequence[float], learning_rate: float = learning_rate) -> list[float]:
                values = []
                for decay in decays:
                    rates = Rates(learning_rate, decay)
                    table[rates] = self._validated(model, batches, plan, rates)
                    logger.info(f"fine-tuning, seed {plan.seed}, {rates}: {table[rates]:.2f} % on validation")
                    values.append(table[rates])
                return values

            halving_search(score, [float(decay) for decay in self.weight_decays], halvings=self.halvings)
        rows: list[list[float | None]] = [
            [*astuple(rates), table[rates] if math.isfinite(table[rates]) else None]
            for rates in sorted(table, key=astuple)
        ]
        return min(table, key=lambda rates: (-table[rates], astuple(rates))), rows

    def _validated(self, model: EvaluableModel, batches: TrainingBatches, plan: Plan, rates: Rates) -> float:
        """The metric on the validation part, minus infinity where training diverges."""
        trained = self._train(model, batches, plan.fit, rates, epochs=self.sweep_epochs, seed=plan.seed)
        rows = None if trained is None else self._predict(*trained, batches, plan.check)
        if rows is None:
            return -math.inf
        probabilities, places = rows
        labels: list[Label] = [self._images.labels[i] for i in places]
        return self.validation_score(probabilities, labels)

    def _train(
        self,
        model: EvaluableModel,
        batches: TrainingBatches,
        positions: Sequence[int],
        rates: Rates,
        *,
        epochs: int,
        seed: int,
    ) -> tuple[EvaluableModel | None, nn.Sequential] | None:
        """A trained copy of the model (None: only the head is) and its head; None when the loss becomes infinite."""
        generator = torch.Generator().manual_seed(seed)
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        encoder = None if self.trainable == "head" else copy.deepcopy(model)
        parameters: list[nn.Parameter] = []
        if encoder is not None:
            encoder.train(True)
            parameters = [p for p in encoder.parameters() if p.is_floating_point()]
            for parameter in parameters:
                parameter.requires_grad_(True)
        width = batches.width(model)
        linear = nn.utils.skip_init(nn.Linear, width, len(self._classes))
        nn.init.normal_(linear.weight, std=0.01, generator=generator)
        nn.init.zeros_(linear.bias)
        norm = nn.BatchNorm1d(width, affine=False)
        head = nn.Sequential(norm, linear).to(device)
        optimizer = torch.optim.SGD(
            [*parameters, *head.parameters()],
            lr=rates.learning_rate,
            weight_decay=rates.weight_decay,
            momentum=self.momentum,
        )
        several = self._multi_label
        loss_of = nn.functional.binary_cross_entropy_with_logits if several else nn.functional.cross_entropy
        scaler = torch.amp.GradScaler(device.type, enabled=batches.amp == "fp16")
        targets = self.targets(self._images.labels).to(device)
        order = [
            batch for _ in range(epochs) for batch in _shuffled_batches(positions, self.batch_size, generator)
        ]
        cuda = [device] if device.type == "cuda" else []
        step = 0
        with torch.random.fork_rng(devices=cuda), torch.enable_grad():
            torch.manual_seed(seed)  # dropout
            label = f"fine-tuning, learning rate {rates.learning_rate:g}, weight decay {rates.weight_decay:g}"
            for inputs, rows in counted(batches.steps(order, device), label, total=len(order)):
                if len(rows) < 2:  # one readable image has no variance
                    continue
                step += 1
                norm.momentum = max(_NORM_MOMENTUM, 1 / step)
                features = batches.features(encoder, inputs)
                logits = head(features.float())
                loss = loss_of(logits, targets[rows])
                if not bool(loss.isfinite()):
                    return None
                optimizer.zero_grad(set_to_none=True)
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
        return encoder, head.eval()

    def _predict(
        self,
        encoder: EvaluableModel | None,
        head: nn.Sequential,
        batches: TrainingBatches,
        positions: Sequence[int] | None,
    ) -> tuple[Tensor, list[int]] | None:
        """Probabilities and positions of images of the pool (None: of the test); None where they are not finite."""
        features, places = batches.frozen(encoder, positions)
        device = next(head.parameters()).device
        with torch.no_grad():
            logits = torch.cat([head(rows.to(device).float()).cpu() for rows in features.split(4096)])
        if not bool(logits.isfinite().all()):
            return None
        return class_probabilities(logits, multi_label=self._multi_label), places


def _shuffled_batches(
    positions: Sequence[int], batch_size: int, generator: torch.Generator
) -> list[list[int]]:
    """One epoch; a single image left over joins the batch before it, since one image has no variance."""
    if len(positions) < 2:
        raise DataError(
            f"fine-tuning: got {len(positions)} training images; expected two or more, for batch normalisation."
        )
    order = [positions[i] for i in torch.randperm(len(positions), generator=generator).tolist()]
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    if len(batches[-1]) == 1:
        batches[-2:] = [batches[-2] + batches[-1]]
    return batches
