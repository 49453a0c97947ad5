"""DINO: by hand, crops, the centre, the temperature's warm-up, and which prototypes get gradients."""

import math
from typing import Any

import pytest
import torch

from hypvl.encoders.mlp_heads import Prototypes
from hypvl.losses.base import IMAGE, TEXT, LossTerm, MissingInputError, View
from hypvl.losses.dino import DINO, dino_loss, dino_target
from tests.losses.contract import LossContract
from tests.losses.sized import Sized
from tests.losses.toy import GeometryOnly, Prototyped, context, random_features

CROPS = {
    "student": ["image:crops.0", "image:crops.1", "image:crops.2"],
    "teacher": ["image:crops.0@ema", "image:crops.1@ema"],
}


class PrototypeContract(LossContract):
    def make(self) -> LossTerm:
        return DINO(student="image", teacher="text", count=5, detach_teacher=False).double()

    def model(self) -> GeometryOnly:
        return Prototyped()

    def flat_model(self) -> GeometryOnly:
        return self.model()


class TestDINO(PrototypeContract):
    pass


class TestDINOWithCrops(PrototypeContract):
    def make(self) -> LossTerm:
        return DINO(
            **CROPS,  # type: ignore[arg-type]  # a dict of lists
            count=5,
            teacher_temperature=0.1,
            start_temperature=0.05,
            warmup_steps=3,
            frozen_steps=1,
            detach_teacher=False,
        ).double()


class TestDINOWithTheStudentsPrototypes(PrototypeContract):
    def make(self) -> LossTerm:
        term = DINO(student="text", teacher="image", count=5, prototypes="student", detach_teacher=False)
        return term.double()


def test_by_hand() -> None:
    """Teacher logits (log 3, 0) less a centre of (0, log 3): softmax (9/10, 1/10); the student has two equal ones."""
    log3 = math.log(3.0)
    target = dino_target(torch.tensor([[log3, 0.0]]), torch.tensor([0.0, log3]), temperature=1.0)
    assert target[0].tolist() == pytest.approx([0.9, 0.1])
    assert dino_loss(torch.tensor([[5.0, 5.0]]), target, temperature=0.1).item() == pytest.approx(math.log(2))
    student = torch.tensor([[0.1 * log3, 0.0]])
    expected = -0.9 * math.log(0.75) - 0.1 * math.log(0.25)
    assert dino_loss(student, target, temperature=0.1).item() == pytest.approx(expected)


def crops(rows: int = 4) -> dict[View, torch.Tensor]:
    views = [View.parse(text) for text in (*CROPS["student"], *CROPS["teacher"])]
    return {view: random_features(rows, seed=i).requires_grad_() for i, view in enumerate(views)}


def test_every_other_crop_is_compared_and_no_crop_with_itself() -> None:
    model, rows = Prototyped(), crops()
    term = DINO(**CROPS, count=5)  # type: ignore[arg-type]  # a dict of lists
    ctx = context(model, rows)
    single = [
        DINO(student=student, teacher=teacher, count=5)(ctx)
        for teacher in CROPS["teacher"]
        for student in CROPS["student"]
        if not teacher.startswith(student)
    ]
    assert len(single) == 4
    torch.testing.assert_close(term(ctx), torch.stack(single).mean())
    with pytest.raises(ValueError, match=r"image:image@student, image:image@ema, which all show the same"):
        DINO(student="image", teacher="image@ema")


def test_the_centre_moves_to_the_teachers_mean() -> None:
    model, rows = Prototyped(), crops()
    term = DINO(**CROPS, count=5, center_momentum=0.75)  # type: ignore[arg-type]  # a dict of lists
    ctx = context(model, rows)
    term.update_(ctx)
    logits = [ctx.prototype_logits(View.parse(text)) for text in CROPS["teacher"]]
    torch.testing.assert_close(term.center, 0.25 * torch.cat(logits).mean(0).detach().float())


def test_the_temperature_rises_over_steps_that_are_not_skipped() -> None:
    term = DINO(
        student="image", teacher="text", start_temperature=0.04, teacher_temperature=0.07, warmup_steps=3
    )
    found = []
    for _ in range(5):
        found.append(float(term.teacher_temperature()))
        term.step_()
    assert found == pytest.approx([0.04, 0.05, 0.06, 0.07, 0.07])


def test_prototypes_are_frozen_at_first_and_the_features_are_not() -> None:
    model, rows = Prototyped(), {IMAGE: random_features(4).requires_grad_(), TEXT: random_features(4, seed=1)}
    term, gradients = DINO(student="image", teacher="text", count=5, frozen_steps=1), []
    values = []
    for _ in range(2):
        model.zero_grad()
        values.append(term(context(model, rows)))
        values[-1].backward()
        gradients.append(model.layers["image"].weight_v.grad.abs().sum().item())
        term.step_()
    assert gradients[0] == 0.0 and gradients[1] > 0 and torch.equal(*values)
    assert rows[IMAGE].grad is not None and rows[IMAGE].grad.abs().sum() > 0


def test_whose_prototypes_the_teacher_is_compared_with() -> None:
    rows = {IMAGE: random_features(4), TEXT: random_features(4, seed=1)}
    own, handed = (
        DINO(student="image", teacher="text", count=5, prototypes=which).logits(context(Prototyped(), rows))[
            1
        ]
        for which in ("own", "student")
    )
    model = Prototyped()
    torch.testing.assert_close(own[0], model.layers["text"](rows[TEXT]))
    torch.testing.assert_close(handed[0], model.layers["image"](rows[TEXT]))


@pytest.mark.parametrize(
    ("models", "arguments", "message"),
    [
        ({"student": Sized(4)}, {}, "its head has no prototype layer"),
        ({"student": Sized(4, Prototypes(4, 7))}, {}, r"count: got 5, but the head of .* has 7 prototypes"),
        (
            {"student": Sized(4, Prototypes(4, 5)), "ema": Sized(3)},
            {"teacher": "image:other@ema"},
            "its head has no prototype layer",
        ),
        (
            {"student": Sized(4, Prototypes(4, 5)), "ema": Sized(3)},
            {"teacher": "image:other@ema", "prototypes": "student"},
            "features of different sizes",
        ),
    ],
)
def test_heads_that_do_not_fit_are_refused(
    models: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    term = DINO(**({"student": "image", "teacher": "text", "count": 5} | arguments))
    with pytest.raises((MissingInputError, ValueError), match=message):
        term.check(models)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"teacher_temperature": 0.0}, "teacher_temperature: got 0"),
        ({"prototypes": "both"}, "prototypes: got 'both'; expected 'own' or 'student'"),
        ({"center_momentum": 1.5}, "center_momentum: got 1.5"),
        ({"student": []}, "student: got no view"),
        ({"count": 1}, "count: got 1"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DINO(**({"student": "image", "teacher": "text"} | arguments))
