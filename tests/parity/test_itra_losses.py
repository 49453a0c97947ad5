"""itra_losses.json: values, gradients and states of ITRA's objectives, and of the original papers'."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hypvl import distributed
from hypvl.geometry.scorers import Cosine
from hypvl.geometry.sphere import Sphere
from hypvl.losses.barlow_twins import BarlowTwins
from hypvl.losses.base import IMAGE, TEXT, LossTerm, View
from hypvl.losses.compress import CompRess1q, CompRess2q
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.dino import DINO
from hypvl.losses.proto_cpc import ProtoCPC, sinkhorn
from hypvl.losses.prototypes import PrototypeDistillation
from hypvl.losses.queue import FeatureQueue
from hypvl.losses.rkd import RKDAngle, RKDDistance
from hypvl.losses.seed import SEED
from hypvl.losses.simcse import SimCSE
from hypvl.losses.simreg import SimReg
from hypvl.losses.vicreg import VICReg
from tests.losses.toy import GeometryOnly, context
from tests.parity.reference import cases, load
from tests.ranks import run_ranks

Case = dict[str, Any]
CLOSE = {"rtol": 1e-9, "atol": 1e-11}
VIEWS: dict[str, Any] = {"student": "image", "teacher": "text"}


def _tensor(value: Any) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _inputs() -> dict[str, Any]:
    return load("itra_losses")["inputs"]  # type: ignore[index]  # the case is there


def _rows(case: Case) -> dict[str, Tensor]:
    """Student and teacher; what the file says behind a name ("teacher_logits[:4] (2 global crops)") is for readers."""
    found = {}
    for role in ("student", "teacher"):
        match = re.match(r"\w+", case[f"{role}_input"])
        assert match is not None
        found[role] = _tensor(_inputs()[match[0]]).requires_grad_()
    return found


def _close(found: Tensor | None, expected: Any, message: str) -> None:
    assert found is not None, message
    torch.testing.assert_close(found.detach(), _tensor(expected), **CLOSE, msg=lambda m: f"{message}: {m}")


def _term(case: Case) -> Callable[[Any], Tensor] | None:
    """The term of a case without state; None for other cases."""
    name, params, published = case["name"], case["params"], "original" in case["name"]
    taught: dict[str, Any] = VIEWS | {"detach_teacher": case["grad_teacher"] is None}
    if name.startswith("SimReg"):
        taught["distance"] = "smooth_l1" if "Smooth" in name else "l1" if "L1" in name else "squared"
        return SimReg(**taught, variant="original" if published else "itra")
    if name.startswith("RKD"):
        taught["variant"] = "itra" if params.get("row_normalise") else "original"
        only_distance, only_angle = (
            {"w_d": 1.0, "w_a": 0.0}, {"w_d": 0.0, "w_a": 1.0},
        )  # fmt: skip
        weights = params if "w_d" in params else only_distance if "distance" in name else only_angle
        terms = [(weights["w_d"], RKDDistance(**taught)), (weights["w_a"], RKDAngle(**taught))]
        return lambda ctx: torch.stack([w * term(ctx) for w, term in terms if w]).sum()
    if name.startswith("VICReg"):
        weights = {f"{long}_weight": params[short] for long, short in _VICREG.items()}
        variant = "itra" if params["row_normalise"] else "original"
        return VICReg(**taught, **weights, eps=params["eps"], variant=variant)
    if name.startswith("BarlowTwins"):
        variant = "itra" if params.get("row_normalise") else "original"
        return BarlowTwins(**taught, off_diagonal=params["lambd"], variant=variant)
    return None


_VICREG = {"invariance": "sim", "variance": "std", "covariance": "cov"}


def _some(which: Callable[[Case], bool]) -> list[Any]:
    """The cases of one kind, or the one that says why there is none."""
    every = cases("itra_losses", "cases")
    found = [p for p in every if not p.values[0] or which(p.values[0])]
    return found or [pytest.param(None, marks=pytest.mark.skip(reason="the file has no such case"))]


def _has_scale(case: Case) -> bool:
    return "logit_scale" in case.get("params", {})


def _has_state(case: Case) -> bool:
    return "state_after" in case


@pytest.mark.parametrize(
    "case", _some(lambda case: not _has_scale(case) and not _has_state(case) and "value" in case)
)
def test_terms_without_state(case: Case) -> None:
    rows, term = _rows(case), _term(case)
    if term is None:
        pytest.skip(f"no term goes by a name like {case['name']}")
    value = term(context(_model(), {IMAGE: rows["student"], TEXT: rows["teacher"]}))
    value.backward()
    _close(value, case["value"], "value")
    for role, x in rows.items():
        if case[f"grad_{role}"] is not None:
            _close(x.grad, case[f"grad_{role}"], f"gradient of the {role}")
        else:
            assert x.grad is None


def _model(scale: float | None = None) -> GeometryOnly:
    model = GeometryOnly(Sphere(), Cosine())
    if scale is not None:
        with torch.no_grad():
            model.scorer.log_scale.fill_(scale).log_()
    return model


@pytest.mark.parametrize("case", _some(_has_scale))
def test_contrastive_terms(case: Case) -> None:
    """InfoNCE and UniCL with the learned scale; SimCSE's is the same loss, also as a term with a fixed one."""
    params, rows, model = case["params"], _rows(case), _model(case["params"]["logit_scale"])
    labels = params.get("labels")
    batch = {} if labels is None else {"labels": torch.tensor(_inputs()[labels])}
    term = Contrastive(labels=None if labels is None else "labels")
    value = term(context(model, {IMAGE: rows["student"], TEXT: rows["teacher"]}, **batch))
    value.backward()
    _close(value, case["value"], "value")
    for role, x in rows.items():
        _close(x.grad, case[f"grad_{role}"], f"gradient of the {role}")
    gradient = model.scorer.log_scale.grad
    assert gradient is not None
    _close(gradient / params["logit_scale"], case["grad_logit_scale"], "gradient of the scale")
    if case["name"].startswith("SimCSE"):
        fixed, again = (
            SimCSE(first="text", second="text#1", scale=params["logit_scale"], variant="itra"),
            _rows(case),
        )
        views = {View.parse("text"): again["teacher"], View.parse("text#1"): again["student"]}
        value = fixed(context(_model(), views))
        value.backward()
        _close(value, case["value"], "value of the term")
        for role, x in again.items():
            _close(x.grad, case[f"grad_{role}"], f"gradient of the {role}")


class Logits(GeometryOnly):
    """A model whose features are the logits of its prototypes already."""

    def __init__(self) -> None:
        super().__init__(Sphere(), Cosine())
        self.teachers = {"ema": self}

    def prototypes(self, modality: str) -> nn.Module:
        return nn.Identity()


def _fill(queue: FeatureQueue, rows: Any, place: int) -> None:
    queue.double()
    queue.rows.copy_(_tensor(rows))
    queue.pointer.fill_(place)


def _stateful(case: Case) -> tuple[LossTerm, dict[str, Tensor]] | None:
    """A term in the state before the call, and its buffers by the names of the file."""
    name, params, given = case["name"], case["params"], _inputs()
    taught: dict[str, Any] = VIEWS | {"detach_teacher": case["grad_teacher"] is None}
    size = params.get("queue_size")
    if name.startswith("SEED"):
        temperatures = {key: params[key] for key in ("student_temperature", "teacher_temperature")}
        seed = SEED(**taught, dim=given["d"], queue_size=size, **temperatures)
        _fill(seed.queue, given[params["queue"]], params["queue_ptr"])
        return seed, {"queue": seed.queue.rows, "queue_ptr": seed.queue.pointer}
    if name.startswith("CompRess-1q"):
        one = CompRess1q(**taught, dim=given["d"], queue_size=size, temperature=params["temperature"])
        _fill(one.teacher_memory, given[params["memory"]], params["index"])
        return one, {"memory": one.teacher_memory.rows, "index": one.teacher_memory.pointer}
    if name.startswith("CompRess-2q"):
        dims = {"student_dim": given["d"], "teacher_dim": given["d"]}
        two = CompRess2q(**taught, **dims, queue_size=size, temperature=params["temperature"])
        memories = {"teacher_memory": two.teacher_memory, "student_memory": two.student_memory}
        for key, memory in memories.items():
            _fill(memory, given[params[key]], params["index"])
        return two, {key: memory.rows for key, memory in memories.items()} | {
            "index": two.teacher_memory.pointer
        }
    count = given["K"]
    if name.startswith("ProtoCPC"):
        shared = ("assignment", "iterations", "prior_momentum")
        options = {key: params[key] for key in shared if key in params} | {
            "student_temperature": params["student_temp"], "teacher_temperature": params["teacher_temp"],
        }  # fmt: skip
        cpc = ProtoCPC(**taught, count=count, **options).double()
        cpc.prior.copy_(_tensor(given[params["prior"]]).squeeze(0))
        return cpc, {"prior": cpc.prior}
    if name.startswith("DINO"):
        options = {
            "student_temperature": params["student_temp"],
            "teacher_temperature": params["teacher_temp"],
        }
        if "ncrops" in params:
            crops = [f"image:crops.{i}" for i in range(params["ncrops"])]
            taught |= {"student": crops, "teacher": [f"{crop}@ema" for crop in crops[:2]]}
            options["start_temperature"] = params["warmup_teacher_temp"]
            options["warmup_steps"] = params["warmup_teacher_temp_epochs"] - 1
        dino = DINO(**taught, count=count, **options, center_momentum=params["center_momentum"]).double()
        dino.center.copy_(_tensor(given[params["center"]]).squeeze(0))
        dino.steps.fill_(params.get("epoch", 0))
        return dino, {"center": dino.center}
    return None


def _views(case: Case, term: LossTerm, rows: dict[str, Tensor]) -> dict[View, Tensor]:
    """Rows by view; with crops those of each one, of the student all rows, of the teacher as many as it has crops."""
    if not isinstance(term, PrototypeDistillation):
        return {IMAGE: rows["student"], TEXT: rows["teacher"]}
    samples = len(rows["student"]) // len(term.students)
    teacher = rows["teacher"][: samples * len(term.teachers)]
    views = dict(zip(term.students, rows["student"].split(samples), strict=True))
    return views | dict(zip(term.teachers, teacher.split(samples), strict=True))


@pytest.mark.parametrize("case", _some(_has_state))
def test_terms_with_state(case: Case) -> None:
    made = _stateful(case)
    if made is None:
        pytest.skip(f"no term goes by a name like {case['name']}")
    (term, buffers), rows = made, _rows(case)
    ctx = context(Logits(), _views(case, term, rows))
    value = term(ctx)
    value.backward()
    _close(value, case["value"], "value")
    for role, x in rows.items():
        if case[f"grad_{role}"] is not None:
            _close(x.grad, case[f"grad_{role}"], f"gradient of the {role}")
    term.update_(ctx)
    assert case["state_after"].keys() <= buffers.keys()
    for name, expected in case["state_after"].items():
        found = buffers[name]
        _close(found.double(), _tensor(expected).reshape(found.shape).tolist(), f"{name} afterwards")
    if "value_second_call" in case:
        _close(term(ctx), case["value_second_call"], "value of the second call")


@pytest.mark.parametrize("case", _some(lambda case: "teacher_temp_schedule" in case))
def test_the_temperature_of_each_epoch(case: Case) -> None:
    made = _stateful(case)
    assert made is not None and isinstance(made[0], DINO)
    term, found = made[0], []
    term.steps.zero_()
    for _ in case["teacher_temp_schedule"]:
        found.append(float(term.teacher_temperature()))
        term.step_()
    assert found == pytest.approx(case["teacher_temp_schedule"], rel=1e-12)


@pytest.mark.parametrize("case", _some(lambda case: case["name"].startswith("Sinkhorn")))
def test_sinkhorn(case: Case) -> None:
    match = re.fullmatch(r"(\w+) / ([\d.]+)", case["input"])
    assert match is not None
    logits = _tensor(_inputs()[match[1]])
    _close(
        sinkhorn(logits, temperature=float(match[2]), iterations=case["iterations"]), case["output"], "output"
    )


def _rank_of_info_nce() -> dict[str, Any]:
    """Value and gradients of this rank's rows."""
    inputs, rank, world = _inputs(), distributed.rank(), distributed.world_size()
    rows = {
        role: _tensor(inputs[role]).chunk(world)[rank].clone().requires_grad_()
        for role in ("student", "teacher")
    }
    ctx = context(_model(inputs["logit_scale"]), {IMAGE: rows["student"], TEXT: rows["teacher"]})
    value = Contrastive()(ctx)
    value.backward()
    return {"value": value.detach()} | {f"grad_{role}_rows": x.grad for role, x in rows.items()}


@pytest.mark.parametrize(
    "mode", ["gather_with_grad", "no_grad_gather_local_rows_replaced", "local_loss_no_grad_gather"]
)
def test_two_ranks(mode: str) -> None:
    """Our gradients are those of the differentiable gather, the world size times those of the plain one.

    The local loss over a gather without gradient has none at all; ours is local, and has the gradient of the former.
    """
    stored = (load("itra_losses") or {}).get("distributed")
    if stored is None:
        pytest.skip("the file has no two-rank numbers")
    world = stored["world_size"]
    ranks = [stored[f"rank{rank}"].get(mode) for rank in range(world)]
    if None in ranks:
        pytest.skip(f"the file has no {mode}")
    found = run_ranks(world, _rank_of_info_nce)
    value = torch.stack([f["value"] for f in found]).mean()
    factor = {"gather_with_grad": 1, "no_grad_gather_local_rows_replaced": world}.get(mode)
    for rank, expected in enumerate(ranks):
        _close(value, expected["value"], f"mean value, as rank {rank} has it")
        for role in ("student", "teacher") if factor is not None else ():
            key = f"grad_{role}_rows"
            _close(found[rank][key] / factor, expected[key], f"{key} of rank {rank}")
        if factor is None:
            assert "no gradient" in expected["error"] and found[rank]["grad_student_rows"].any()
