"""Scores of an image and a text that a model sees together, which no two embeddings carry: a matching head."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hypvl import distributed
from hypvl.checks import whole_number
from hypvl.datasets.protocol import ImageSource
from hypvl.embedding.distributed_encode import Encoded, run_shares
from hypvl.embedding.encode import Encoding
from hypvl.embedding.loading import load_batches
from hypvl.embedding.protocol import EvaluableModel, check_scores, evaluating
from hypvl.errors import UserError
from hypvl.io.progress import terminal_bar

_IMAGES_AT_ONCE = 32


class PairScorer(Protocol):
    """A scorer of pairs of inputs: BLIP's matching head, a cross encoder such as X-VLM's.

    Attributes:
        name: What results call it.
        image_size: Side in pixels of the images that it takes.
    """

    name: str
    training: bool

    @property
    def image_size(self) -> int: ...

    def image_states(self, images: Tensor) -> Tensor:
        """uint8 (I, 3, H, W) -> what it needs of each image for any text, (I, ...); computed once per image."""

    def score(self, states: Tensor, texts: Sequence[str]) -> Tensor:
        """States of P images (P, ...) and P texts -> scores (P,) of the P pairs; higher = closer."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Inputs go to the device of the first one."""

    def train(self, mode: bool = True) -> Any:
        """Switch dropout and the like on or off, as ``nn.Module.train``."""


def own_pair_scorer(model: EvaluableModel, *, asked_by: str) -> PairScorer:
    """The ``pair_scorer`` of a model.

    Raises:
        UserError: for a model without one; ``asked_by`` is the setting that needs it.
    """
    own: PairScorer | None = getattr(model, "pair_scorer", None)
    if own is None:
        raise UserError(
            f"{asked_by}: the model scores images and texts by their embeddings alone; expected one with a matching "
            "head (BLIP, BLIP-2), or a scorer in the evaluator's pair_scorer."
        )
    return own


def score_inputs(
    scorer: PairScorer,
    images: ImageSource,
    texts: Sequence[str],
    asked: Mapping[int, Sequence[int]],
    *,
    transform: Callable[[Tensor], Tensor],
    encoding: Encoding,
    label: str = "pairs",
) -> tuple[dict[int, list[float]], list[tuple[int, str]]]:
    """Score chosen texts for images; each image is read once. Under a process group each rank scores its share.

    Args:
        asked: Position of an image -> positions of the texts to score it with.
        transform: To uint8 (3, size, size) of the scorer; run in the workers.
        encoding: Its ``batch_size`` is the number of pairs per forward pass.
        label: What the progress bar says.

    Returns:
        Position of each readable image -> its scores, in the order of ``asked``; position and reason of the others.

    Raises:
        DataError: when more than ``max_bad_fraction`` of the images are unreadable.
        UserError: when scores are NaN.
        ValueError: when the scorer gives other than one score for each pair.
    """
    positions = sorted(image for image, own in asked.items() if own)
    start_of: dict[int, int] = {}  # number of the first pair of each image
    total = 0
    for image in positions:
        start_of[image] = total
        total += len(asked[image])

    def share(batches: Sequence[Sequence[int]]) -> Encoded:
        numbers: list[int] = []
        blocks: list[Tensor] = []
        bad: list[tuple[int, str]] = []
        loader = load_batches(images, batches, transform=transform, num_workers=encoding.workers)
        shown = encoding.progress and distributed.is_main()
        with evaluating(scorer) as device, terminal_bar(label, shown=shown) as move_bar:
            done = 0
            for batch in loader if batches else ():
                bad += [(image.index, image.reason) for image in batch if image.pixels is None]
                encoding.check_unreadable(label, bad, total=len(positions))
                readable = [image for image in batch if image.pixels is not None]
                done += len(batch)
                if readable:
                    stack = torch.stack([image.pixels for image in readable])  # type: ignore[misc]  # (I, 3, H, W)
                    pairs = [(row, text) for row, image in enumerate(readable) for text in asked[image.index]]
                    blocks.append(_scores(scorer, stack.to(device), pairs, texts, encoding))
                    numbers += [
                        start_of[image.index] + i
                        for image in readable
                        for i in range(len(asked[image.index]))
                    ]
                move_bar(done, sum(map(len, batches)))
        return Encoded(numbers, torch.cat(blocks)[:, None] if blocks else None, bad)

    scored = run_shares(share, positions, batch_size=_IMAGES_AT_ONCE)
    encoding.check_unreadable(label, scored.bad, total=len(positions))
    values = iter([] if scored.rows is None else scored.rows[:, 0].tolist())  # in the order of their numbers
    unreadable = {image for image, _ in scored.bad}
    result = {
        image: list(islice(values, len(asked[image]))) for image in positions if image not in unreadable
    }
    return result, scored.bad


def _scores(
    scorer: PairScorer,
    images: Tensor,
    pairs: Sequence[tuple[int, int]],
    texts: Sequence[str],
    encoding: Encoding,
) -> Tensor:
    """Scores of pairs (row of an image, position of a text), float64 on the CPU, (P,)."""
    with encoding.autocast(images.device):
        states = scorer.image_states(images)  # (I, ...)
        blocks = []
        for start in range(0, len(pairs), encoding.batch_size):
            part = pairs[start : start + encoding.batch_size]
            rows = torch.tensor([row for row, _ in part], device=states.device)
            scores = scorer.score(states[rows], [texts[text] for _, text in part])
            if scores.shape != (len(part),):
                raise ValueError(
                    f"pair_scorer {scorer.name}: gave scores of shape {tuple(scores.shape)} for {len(part)} pairs; "
                    "expected one for each."
                )
            check_scores(scores)
            blocks.append(scores.double().cpu())
    return torch.cat(blocks)


def rerank(order: Tensor, scores: Tensor, *, first: int) -> Tensor:
    """The first items of each query in the order of other scores, then the rest; of equal ones the earlier first.

    Args:
        order: Items of each query, best first, (Q, k).
        scores: Of the first items, (Q, min(first, k)).
        first: How many are put in a new order, >= 1.

    Returns:
        (Q, k).

    Raises:
        ValueError: for scores of another shape.

    Example:
        >>> rerank(torch.tensor([[7, 5, 6]]), torch.tensor([[0.1, 0.4]]), first=2)
        tensor([[5, 7, 6]])
    """
    first = min(whole_number("first", first, least=1, most=2**31 - 1), order.shape[1])
    if scores.shape != (len(order), first):
        raise ValueError(f"scores: got shape {tuple(scores.shape)}; expected {(len(order), first)}.")
    better = scores.argsort(dim=1, descending=True, stable=True)
    return torch.cat((order[:, :first].gather(1, better), order[:, first:]), dim=1)
