"""Teachers: frozen models and moving averages, in a learner, with gradient caching, checkpoints and DDP."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hypvl.encoders.heads import ProjectionHead
from hypvl.encoders.mlp_heads import DINOHead, IdentityHead
from hypvl.encoders.text import TextTransformer
from hypvl.errors import CheckpointError
from hypvl.geometry.scorers import Cosine
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import LossTerm, MissingInputError, Objective, PairContext, View, check_same_width
from hypvl.losses.contrastive import Contrastive
from hypvl.models.dual_encoder import DualEncoder
from hypvl.training.accumulation import GradCache
from hypvl.training.optim import parameter_groups
from hypvl.training.step import Learner, Precision, forward_backward
from hypvl.training.teachers import EMATeacher, FrozenTeacher, Teacher
from tests.training.tiny import tiny_batch, tiny_model

FULL = Precision.choose(False, torch.device("cpu"))


class Match(LossTerm):
    """Mean squared difference of the features of two views."""

    def __init__(self, student: str, teacher: str) -> None:
        super().__init__()
        self.student, self.teacher = self.declare(student, teacher)

    def check(self, models: Any) -> None:
        super().check(models)
        check_same_width(models, self.student, self.teacher)

    def forward(self, ctx: PairContext) -> Tensor:
        return (ctx.features(self.student) - ctx.features(self.teacher)).square().mean()


def taught(teacher: Teacher, *, student: str = "image", view: str = "image@t", seed: int = 0) -> Learner:
    objective = Objective({"match": Match(student, view), "contrastive": Contrastive()})
    return Learner(tiny_model("clip", seed=seed), objective, {"t": teacher}).train()


def step(learner: Learner, micro_batch: int | None = None) -> dict[str, Tensor]:
    learner.zero_grad(set_to_none=True)
    cache = None if micro_batch is None else GradCache(micro_batch)
    forward_backward(learner, tiny_batch(), precision=FULL, scaler=FULL.make_scaler(), cache=cache)
    return {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}


def test_a_frozen_teacher_is_encoded_without_graph_in_eval_mode() -> None:
    teacher = FrozenTeacher(tiny_model("clip", seed=5))
    learner = taught(teacher)
    output, ctx = learner(tiny_batch())
    assert not ctx.features(View("image", "image", "t")).requires_grad
    assert not any(module.training for module in teacher.modules()) and learner.model.training
    expected = tiny_model("clip", seed=5).encode_image(tiny_batch()["image"], stage="features")
    torch.testing.assert_close(ctx.features(View("image", "image", "t")), expected)
    output.total.backward()
    assert all(p.grad is None for p in teacher.parameters())


def test_a_teacher_is_in_no_optimizer() -> None:
    learner = taught(FrozenTeacher(tiny_model("clip", seed=5)))
    groups = parameter_groups(learner, weight_decay=0.1, gain_bias_decay=0.0)
    trained = {id(p) for group in groups for p in group["params"]}  # type: ignore[attr-defined]  # a list
    assert trained == {id(p) for p in learner.model.parameters() if p.requires_grad}


@pytest.mark.parametrize("make", [lambda: FrozenTeacher(tiny_model("clip", seed=5)), EMATeacher])
def test_gradient_caching_gives_the_same_gradients(make: Any) -> None:
    learner = taught(make()).double()
    direct, cached = step(learner), step(learner, 3)
    assert direct.keys() == cached.keys() and not any(name.startswith("teachers") for name in direct)
    for name, gradient in direct.items():
        torch.testing.assert_close(cached[name], gradient, rtol=1e-9, atol=1e-12)


def test_either_tower_may_be_the_teacher() -> None:
    """The text tower of a frozen model that has no image tower teaches the image tower of the student."""
    torch.manual_seed(1)
    text_only = DualEncoder(
        None,
        TextTransformer("L1_W12_A2", vocab_size=50, context_length=8),
        textual_head=IdentityHead,
        geometry=Sphere(),
        scorer=Cosine(),
    )
    learner = taught(FrozenTeacher(text_only), view="text@t")
    gradients = step(learner)
    assert gradients["model.visual_head.projection.weight"].abs().sum() > 0
    with pytest.raises(ValueError, match=r"model\.visual: is null, so this model takes no images"):
        text_only.encode_image(tiny_batch()["image"])


def test_the_average_moves_by_hand() -> None:
    """0.75 of the old and 0.25 of the new, then 0.5 of each, as half a cosine from 0.75 to 0.25 has it half way."""
    learner = taught(EMATeacher(momentum=0.75, final_momentum=0.25, total_steps=2))
    weight = learner.get_parameter("model.visual_head.projection.weight")
    average = learner.get_parameter("teachers.t.encoder.visual_head.projection.weight")
    with torch.no_grad():
        weight.fill_(1.0)
        average.fill_(0.0)
    averages = []
    for _ in range(3):
        learner.update_(learner(tiny_batch())[1])
        averages.append(average.mean().item())
    assert averages == pytest.approx([0.25, 0.625, 1 - 0.375 * 0.25])


def test_a_skipped_step_leaves_the_average() -> None:
    learner = taught(EMATeacher(momentum=0.5))
    before = {name: value.clone() for name, value in learner.teachers["t"].state_dict().items()}
    with torch.no_grad():
        for parameter in learner.model.parameters():
            parameter.add_(1.0)
    learner.update_(learner(tiny_batch())[1], stepped=torch.tensor(False))
    after = learner.teachers["t"].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_warm_up_forgets_the_first_weights() -> None:
    teacher = EMATeacher(momentum=0.9999, warmup=True)
    assert teacher._momentum().item() == pytest.approx(0.1)
    teacher.updates.fill_(10**7)
    assert teacher._momentum().item() == pytest.approx(0.9999, abs=1e-6)


def test_prototypes_of_the_students_head_get_no_gradient_through_the_teacher() -> None:
    torch.manual_seed(0)
    student = tiny_model("clip")
    student.visual_head = DINOHead(16, 12, layers=1, prototypes=5)
    image, taught_by = View("image", "image"), View("image", "image", "t")

    class Protos(Match):
        def forward(self, ctx: PairContext) -> Tensor:
            own, other = ctx.prototype_logits(image), ctx.prototype_logits(taught_by, layer_of=image)
            return (own - other.detach()).square().sum() + other.sum()

    learner = Learner(student, Objective({"p": Protos("image", "image@t")}), {"t": EMATeacher()})
    output, ctx = learner(tiny_batch())
    torch.testing.assert_close(ctx.prototype_logits(image), ctx.prototype_logits(taught_by))
    output.total.backward()
    gradient = student.get_parameter("visual_head.prototypes.weight_v").grad
    assert gradient is not None and not gradient.any()
    with pytest.raises(MissingInputError, match="its head has no prototype layer"):
        ctx.prototype_logits(View("text", "text"))


def test_other_widths_are_refused() -> None:
    other = tiny_model("clip", seed=5)
    other.visual_head, other.embed_dim = ProjectionHead(16, 7), 7
    with pytest.raises(ValueError, match=r"terms.match: features of different sizes .*image:image@t: 7"):
        taught(FrozenTeacher(other))


def test_a_teacher_may_not_be_named_student() -> None:
    with pytest.raises(ValueError, match="one is named 'student'"):
        Learner(tiny_model("clip"), Objective({"a": Contrastive()}), {"student": EMATeacher()})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"momentum": 1.5}, "momentum: got 1.5"),
        ({"momentum": math.nan}, "momentum: got nan"),
        ({"final_momentum": 1.0}, "got 1.0 with total_steps=None; expected both"),
        ({"final_momentum": 1.0, "total_steps": 0}, "total_steps: got 0"),
    ],
)
def test_numbers_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EMATeacher(**arguments)


def test_a_checkpoint_that_does_not_fit_a_teacher_is_refused(tmp_path: Path) -> None:
    torch.save({"model": nn.Linear(2, 2).state_dict()}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError):
        FrozenTeacher(tiny_model("clip"), checkpoint=tmp_path / "other.pth")
