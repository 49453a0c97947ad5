"""Every term of distillation and self-supervision in a learner: caching, skipped steps, bf16, saving and loading."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hypvl.config import LazyCall as L
from hypvl.encoders.mlp_heads import DINOHead
from hypvl.errors import ConfigError
from hypvl.losses.barlow_twins import BarlowTwins
from hypvl.losses.base import LossTerm, Objective
from hypvl.losses.compress import CompRess1q, CompRess2q
from hypvl.losses.dino import DINO
from hypvl.losses.proto_cpc import ProtoCPC
from hypvl.losses.rkd import RKDAngle, RKDDistance
from hypvl.losses.seed import SEED
from hypvl.losses.simcse import SimCSE
from hypvl.losses.simreg import Predictor, SimReg
from hypvl.losses.vicreg import VICReg
from hypvl.models.dual_encoder import DualEncoder
from hypvl.training.accumulation import GradCache
from hypvl.training.config import TrainConfig
from hypvl.training.run import _learner
from hypvl.training.step import Learner, Precision, forward_backward
from hypvl.training.teachers import EMATeacher, FrozenTeacher
from tests.training.tiny import tiny_batch, tiny_model

CPU = torch.device("cpu")
TAUGHT: dict[str, Any] = {"student": "image", "teacher": "text@frozen"}
EMA: dict[str, Any] = {"student": ["image", "image:crop"], "teacher": ["image@ema", "image:crop@ema"]}
TERMS: dict[str, Any] = {
    "simreg": lambda: SimReg(**TAUGHT, predictor=Predictor(12, 12, hidden=8)),
    "rkd distance": lambda: RKDDistance(**TAUGHT),
    "rkd angle": lambda: RKDAngle(student="text", teacher="image"),
    "seed": lambda: SEED(**TAUGHT, dim=12, queue_size=16),
    "compress 1q": lambda: CompRess1q(**TAUGHT, dim=12, queue_size=20),
    "compress 2q": lambda: CompRess2q(**TAUGHT, student_dim=12, teacher_dim=12, queue_size=20),
    "dino": lambda: DINO(**EMA, count=6, warmup_steps=4, start_temperature=0.02, frozen_steps=1),
    "dino handed over": lambda: DINO(**TAUGHT, count=6, prototypes="student"),
    "proto_cpc": lambda: ProtoCPC(student="image", teacher="text", count=6, assignment="sinkhorn"),
    "vicreg": lambda: VICReg(student="image", teacher="image:crop"),
    "barlow twins": lambda: BarlowTwins(student="image", teacher="text"),
    "simcse": lambda: SimCSE(),
}
STATEFUL = ["seed", "compress 1q", "compress 2q", "dino", "proto_cpc"]
every_term = pytest.mark.parametrize("name", TERMS)


def model(seed: int) -> DualEncoder:
    made = tiny_model("clip", seed=seed)
    made.visual_head, made.textual_head = (
        DINOHead(16, 12, layers=2, hidden=8, prototypes=6) for _ in range(2)
    )
    with torch.no_grad():
        for head in (made.visual_head, made.textual_head):
            for layer in head.mlp:
                if isinstance(layer, nn.Linear):
                    layer.weight.mul_(
                        30
                    )  # else rows are nearly equal, and their differences are rounding in bf16
    return made


def learner(name: str) -> Learner:
    student = model(0)
    term: LossTerm = TERMS[name]()
    return Learner(student, Objective({"it": term}), {"frozen": FrozenTeacher(model(1)), "ema": EMATeacher()})


def batch(seed: int = 0) -> dict[str, Any]:
    return tiny_batch(seed=seed) | {"crop": tiny_batch(seed=seed + 50)["image"]}


def gradients(made: Learner, *, precision: Any = False, micro_batch: int | None = None) -> dict[str, Tensor]:
    made.zero_grad(set_to_none=True)
    chosen = Precision.choose(precision, CPU)
    cache = None if micro_batch is None else GradCache(micro_batch)
    output, _ = forward_backward(made, batch(), precision=chosen, scaler=chosen.make_scaler(), cache=cache)
    assert torch.isfinite(output.total)
    return {key: p.grad for key, p in made.named_parameters() if p.grad is not None}


@every_term
def test_gradient_caching_gives_the_same_gradients(name: str) -> None:
    made = learner(name).double()
    direct, cached = gradients(made), gradients(made, micro_batch=3)
    assert direct.keys() == cached.keys() and any(g.any() for g in direct.values())
    assert not any(key.startswith("teachers") for key in direct)
    for key, gradient in direct.items():
        torch.testing.assert_close(cached[key], gradient, rtol=1e-8, atol=1e-11)


@every_term
def test_in_bf16_the_gradients_are_nearly_those_in_fp32(name: str) -> None:
    made = learner(name)
    full, half = gradients(made), gradients(made, precision="bf16")
    assert full.keys() == half.keys() and all(torch.isfinite(g).all() for g in half.values())
    whole, rounded = (torch.cat([g[key].flatten() for key in sorted(full)]) for g in (full, half))
    assert torch.nn.functional.cosine_similarity(whole, rounded, dim=0) > 0.8


@pytest.mark.parametrize("name", STATEFUL)
def test_a_skipped_step_changes_no_state(name: str) -> None:
    made = learner(name)
    before = {key: buffer.clone() for key, buffer in made.objective.named_buffers()}
    _, ctx = made(batch())
    made.update_(ctx, stepped=torch.tensor(False))
    assert all(torch.equal(buffer, before[key]) for key, buffer in made.objective.named_buffers())
    made.update_(ctx, stepped=torch.tensor(True))
    changed = {key for key, buffer in made.objective.named_buffers() if not torch.equal(buffer, before[key])}
    assert changed - {"steps"}


@pytest.mark.parametrize("name", STATEFUL)
def test_goes_on_from_a_checkpoint(name: str) -> None:
    one, other = learner(name), learner(name)
    for seed in range(2):
        one.update_(one(batch(seed))[1])
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(batch(7))[0].total, other(batch(7))[0].total)
    assert not torch.equal(one(batch(7))[0].total, learner(name)(batch(7))[0].total)


def test_accumulated_parts_are_one_step_and_enter_a_queue_in_order() -> None:
    made = learner("dino")
    made.update_(made(batch(0))[1], made(batch(1))[1])
    assert made.objective.get_buffer("terms.it.steps").item() == 1
    made = learner("seed")
    contexts = [made(batch(seed))[1] for seed in (0, 1)]
    made.update_(*contexts)
    views = [next(view for view in made.views if view.encoder == "frozen")]
    rows = torch.cat([torch.nn.functional.normalize(ctx.features(views[0]), dim=1) for ctx in contexts])
    torch.testing.assert_close(made.objective.get_buffer("terms.it.queue.rows"), rows)


def test_a_head_without_prototypes_is_refused_at_the_start() -> None:
    with pytest.raises(
        ValueError, match=r"terms.it: view image:image@student: its head has no prototype layer"
    ):
        Learner(tiny_model("clip"), Objective({"it": DINO(student="image", teacher="text", count=6)}))


def test_a_queue_that_the_batch_does_not_divide_is_refused_before_anything_is_written() -> None:
    node = L(Objective)(terms={"it": L(SEED)(**TAUGHT | {"teacher": "text"}, dim=12, queue_size=16)})
    for naive, batch_size in ((1, 16), (2, 16)):
        settings = {"objective": node, "total_batch_size": batch_size, "naive_accumulate": naive}
        assert isinstance(_learner(model(0), TrainConfig.read(settings)), Learner)
    message = r"train\.objective\.terms\.it: queue_size: got 16, which batches of 12 samples do not divide"
    with pytest.raises(ConfigError, match=message):
        _learner(model(0), TrainConfig.read({"objective": node, "total_batch_size": 12}))
