"""Keys that travel in a ring give the losses and gradients of keys that are gathered, on 2, 3 and 4 ranks."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hypvl import distributed
from hypvl.geometry.euclidean import Euclidean
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.product import Product
from hypvl.geometry.scorers import Cosine, ExteriorAngle, NegativeDistance
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import IMAGE, TEXT, LossTerm, View
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.hard_negative import HardNegativeContrastive
from hypvl.losses.himo import PrincipalContrastive
from hypvl.losses.info_nce import info_nce
from hypvl.losses.ring import Part, around, check_gather
from hypvl.losses.sigmoid import Sigmoid
from tests.geometry.contract import Largest
from tests.losses.implementations import forced
from tests.losses.test_distributed import contracts
from tests.losses.toy import GeometryOnly, context, random_features
from tests.ranks import run_ranks

ROWS = 12  # a multiple of 2, 3 and 4
BOX_IMAGE, BOX_TEXT, NEGATIVES = (
    View("image", "box_image"),
    View("text", "box_text"),
    View("text", "negative_text"),
)
OWNERS = [
    0,
    0,
    1,
    3,
    3,
    3,
    4,
    6,
    7,
    7,
    11,
    11,
]  # the sample of each box: the ranks have different numbers of them
MODELS: dict[str, Callable[[], GeometryOnly]] = {
    "distance": lambda: GeometryOnly(Lorentz(curv_init=0.5), NegativeDistance()),
    "angle": lambda: GeometryOnly(Lorentz(), ExteriorAngle()),
    "flat": lambda: GeometryOnly(Euclidean(), NegativeDistance()),
    "cosine": lambda: GeometryOnly(Sphere(), Cosine()),
    "product": lambda: GeometryOnly(Product(2, 2), NegativeDistance()),
}


class Scaled(LossTerm):
    """Boxes against the wholes, with a factor for each query, as UNCHA has."""

    uneven, rings = True, True

    def __init__(self, **given: Any) -> None:
        super().__init__()
        self.given = given
        self.declare(BOX_TEXT, TEXT)

    def forward(self, ctx: Any) -> Tensor:
        scale = 1 + ctx.embeddings(BOX_TEXT).square().sum(1)
        return info_nce(ctx, BOX_TEXT, TEXT, row_scale=scale, **self.given).mean()


BOXES = ((BOX_IMAGE, BOX_TEXT), (BOX_TEXT, BOX_IMAGE))
TERMS: dict[str, Callable[[], LossTerm]] = {
    "pairs": Contrastive,
    "tiled": lambda: Contrastive(implementation="tiled", tile=(2, 3)),
    "smoothing": lambda: Contrastive(label_smoothing=0.1),
    "tiled, smoothing": lambda: Contrastive(label_smoothing=0.1, implementation="tiled"),
    "labels": lambda: Contrastive(labels="labels", label_smoothing=0.2),
    "tiled, labels": lambda: Contrastive(labels="labels", label_smoothing=0.2, implementation="tiled"),
    "one view": lambda: Contrastive([(IMAGE, IMAGE)]),
    "boxes": lambda: Contrastive(BOXES),
    "tiled boxes": lambda: Contrastive(BOXES, implementation="tiled"),
    "boxes, local": lambda: Contrastive(BOXES, over="local"),
    "boxes of wholes": lambda: Scaled(),
    "tiled boxes of wholes": lambda: Scaled(implementation="tiled"),
    "wholes per box, masked": lambda: Scaled(wholes="per_row", same_whole="masked", smoothing=0.1),
    "negatives": HardNegativeContrastive,
    "tiled negatives": lambda: HardNegativeContrastive(implementation="tiled"),
    "masked negatives": lambda: HardNegativeContrastive(invalid_negatives="mask"),
    "sigmoid": lambda: Sigmoid(bias_init=-3.0).double(),
    "tiled sigmoid": lambda: Sigmoid(bias_init=-3.0, denominator="pairs", implementation="tiled").double(),
}  # fmt: skip
LABELS = torch.tensor([0, 0, 1, 1, 2, -1, 2, 2, 3, 4, 5, -1])


def rows_of(view: View, *, seed: int) -> Tensor:
    world, rank = distributed.world_size(), distributed.rank()
    if view.source.startswith("box_"):
        all_of = random_features(len(OWNERS), seed=seed)
        return all_of[[owner * world // ROWS == rank for owner in OWNERS]]
    each = 2 if view == NEGATIVES else 1
    return random_features(each * ROWS, seed=seed).chunk(world)[rank]


def measure(term: LossTerm, model: GeometryOnly, gather: str) -> list[Tensor]:
    """The loss, and the gradients of this rank's rows and of every parameter."""
    world, rank = distributed.world_size(), distributed.rank()
    size = ROWS // world
    views = {IMAGE, TEXT, *term.needs}  # the wholes say how many samples there are
    rows = {v: rows_of(v, seed=i).clone().requires_grad_() for i, v in enumerate(sorted(views, key=str))}
    batch = {
        "labels": LABELS.chunk(world)[rank],
        "negative_mask": (torch.arange(2 * ROWS) % 3 > 0).view(ROWS, 2).chunk(world)[rank],
        "box_owner": np.array(
            [owner - size * rank for owner in OWNERS if owner // size == rank], dtype=np.int64
        ),
    }
    value = term(context(model, rows, gather=gather, **batch))  # type: ignore[arg-type]
    parameters = [p for p in (*model.parameters(), *term.parameters()) if p.requires_grad]
    inputs = [*rows.values(), *parameters]
    gradients = torch.autograd.grad(value, inputs, allow_unused=True)
    return [
        value.detach(),
        *(torch.zeros_like(x) if g is None else g for x, g in zip(inputs, gradients, strict=True)),
    ]


def both_ways() -> dict[str, list[list[Tensor]]]:
    """Of every term and geometry: gathered, and in a ring."""
    result = {}
    for term in TERMS:
        one = (
            "cosine" if term == "one view" else "distance"
        )  # the distance of a point to itself is rounding noise
        for model in MODELS if term in ("pairs", "tiled", "tiled sigmoid") else (one,):
            result[f"{term}, {model}"] = [
                measure(TERMS[term](), MODELS[model](), way) for way in ("all", "ring")
            ]
    return result


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3, 4])
def test_equal_to_gathered(world: int) -> None:
    for rank, results in enumerate(run_ranks(world, both_ways)):
        for name, ways in results.items():
            for gathered, ring in zip(*ways, strict=True):
                torch.testing.assert_close(
                    ring, gathered, rtol=1e-9, atol=1e-11, msg=lambda m, n=name, r=rank: f"{n}, rank {r}: {m}"
                )


def test_one_process_holds_what_it_has() -> None:
    for name, (gathered, ring) in both_ways().items():
        assert all(torch.equal(x, y) for x, y in zip(gathered, ring, strict=True)), name


def of_contracts() -> dict[str, list[list[Tensor]]]:
    """Every term that says it rings, gathered and in a ring, in tiles too."""
    result = {}
    for name, kind in contracts().items():
        contract = kind()
        if not contract.make().rings:
            continue
        for implementation in ("chosen", "tiled"):
            ways = []
            for way in ("all", "ring"):
                term, model = contract.make(), contract.model()
                world, rank = distributed.world_size(), distributed.rank()
                rows = {v: x.chunk(world)[rank].clone().requires_grad_() for v, x in contract.rows(6).items()}
                batch = {k: x.chunk(world)[rank] for k, x in contract.batch(6).items()}
                with forced(implementation):
                    value = term(context(model, rows, gather=way, **batch))  # type: ignore[arg-type]
                gradients = torch.autograd.grad(value, list(rows.values()), allow_unused=True)
                ways.append([value.detach(), *(g for g in gradients if g is not None)])
            result[f"{name}, {implementation}"] = ways
    return result


@pytest.mark.slow
def test_every_term_that_rings_is_equal_to_gathered() -> None:
    for results in run_ranks(2, of_contracts):
        assert len(results) > 20
        for name, ways in results.items():
            for gathered, ring in zip(*ways, strict=True):
                torch.testing.assert_close(
                    ring, gathered, rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}"
                )


def gradient_is_right() -> bool:
    """Derivatives of the sum over ranks by every number of every rank."""
    torch.manual_seed(distributed.rank())
    x, y = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    model = MODELS["distance"]()

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return Contrastive()(context(model, {IMAGE: x, TEXT: y}, gather="ring"))

    return _numerical(loss, x, y)


def _numerical(loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> bool:
    """gradcheck by hand: all ranks move together, so that they meet in the collectives."""
    x, y = x.detach().requires_grad_(), y.detach().requires_grad_()
    gradients = torch.autograd.grad(loss(x, y), (x, y))
    step = 1e-6
    for moved, gradient in zip((x, y), gradients, strict=True):
        for place in range(moved.numel()):
            for mover in range(distributed.world_size()):
                ends = []
                for sign in (1, -1):
                    with torch.no_grad():
                        change = torch.zeros_like(moved).flatten()
                        change[place] = sign * step * (distributed.rank() == mover)
                        change = change.view_as(moved)
                        value = loss(x + change, y) if moved is x else loss(x, y + change)
                        ends.append(
                            distributed.all_reduce_sum(value)
                        )  # of every rank, as backward passes add up
                if distributed.rank() == mover:
                    numerical = (ends[0] - ends[1]) / (2 * step)
                    torch.testing.assert_close(gradient.flatten()[place], numerical, rtol=1e-6, atol=1e-8)
    return True


@pytest.mark.slow
def test_gradients_are_numerical_derivatives() -> None:
    assert run_ranks(3, gradient_is_right) == [True] * 3


def largest_tensor() -> dict[str, int]:
    """Numbers of the largest tensor that is made in a forward and backward pass, of blocks of 16 x 64 numbers."""
    result = {}
    for way in ("all", "ring"):
        rows = {
            view: random_features(16, 64, seed=i).requires_grad_() for i, view in enumerate((IMAGE, TEXT))
        }
        with Largest() as seen:
            Contrastive(implementation="tiled")(context(MODELS["distance"](), rows, gather=way)).backward()  # type: ignore[arg-type]
        result[way] = seen.numel
    return result


@pytest.mark.slow
def test_no_rank_makes_a_tensor_of_all_rows() -> None:
    assert run_ranks(3, largest_tensor) == [{"all": 3 * 16 * 64, "ring": 16 * 64}] * 3


def test_a_ring_of_one_sums_its_block() -> None:
    x, y = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([3.0, 5.0, 7.0], requires_grad=True)
    scale = torch.tensor(2.0, requires_grad=True)

    def block(own: Any, visiting: Any, source: int) -> Part:
        z = scale * own[0][:, None] * visiting[0]
        return Part(z.logsumexp(1), (z.sum(1),), z.logsumexp(0))

    shapes = Part(torch.full((2,), -torch.inf), (torch.zeros(2),), torch.full((3,), -torch.inf))
    part = around(block, [x], [y], counts=[3], parameters=[scale], shapes=shapes)
    z = scale * x[:, None] * y
    assert part.lse is not None and part.columns is not None
    for ring, plain in ((part.lse, z.logsumexp(1)), (part.sums[0], z.sum(1)), (part.columns, z.logsumexp(0))):
        torch.testing.assert_close(ring, plain)
    for ring, plain in zip(
        torch.autograd.grad(part.lse.sum() + part.columns.square().sum() - part.sums[0].sum(), (x, y, scale)),
        torch.autograd.grad(z.logsumexp(1).sum() + z.logsumexp(0).square().sum() - z.sum(), (x, y, scale)),
        strict=True,
    ):
        torch.testing.assert_close(ring, plain)


def test_a_term_that_needs_every_row_is_named() -> None:
    terms = {"pairs": Contrastive(), "principal": PrincipalContrastive()}
    check_gather(terms, "all")
    with pytest.raises(
        ValueError, match=r"terms\.principal: PrincipalContrastive needs the rows of every rank at once"
    ):
        check_gather(terms, "ring")
    with pytest.raises(ValueError, match=r"gather: got 'rings'"):
        check_gather(terms, "rings")  # type: ignore[arg-type]
