"""HierarCaps-PEP: whether the cones of an image's own captions hold the image, and those of other captions do not."""

from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import whole_number
from hypvl.data.transforms import ResizeCenterCrop
from hypvl.datasets.hierarchy.caption_chains import CaptionChains
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel, check_embeddings, evaluating
from hypvl.embedding.search import pair_scores
from hypvl.errors import DataError
from hypvl.evaluation.pep import entailment_scores, ranking_metrics
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.metrics.classification import roc_auc

_BLOCK = 1 << 14  # pairs whose angles are computed at once
_WAYS = ("angle", "margin", "score")


@configurable("evaluate")
@dataclass
class ChainEntailment(Evaluator):
    """Entailment of images by their own captions of every level, against captions of other images.

    With HierarCaps's 1,000 images, 4 captions each and 100 negatives these are 4,000 true pairs and 100,000 false ones.
    Three scores of a pair of caption a and image b, as in :class:`~hypvl.evaluation.pep.EntailmentPairs`: ``angle``,
    max(1 - 2 phi / pi, 0); ``margin``, -(phi - A); and ``score``, the model's own.

    Metrics, in percent, over all pairs: ``auroc_<way>`` (``auroc_margin`` is the main one; ties count half) with its
    ``_chance`` of 50, ``ap_<way>`` (average precision, tied pairs enter together) with its ``_chance``, the share of
    true pairs, ``ties_<way>``, the share of true pairs whose value a false pair has too; and
    ``auroc_<way>_level_<n>``, the true pairs of one level (1 = the most general) against all false ones. Where the
    geometry has no cones there is only ``score``, and ``meta`` names its AUROC as the main metric. Unreadable images
    are left out.

    Items, one per image: ``key`` and ``auroc_angle``, ``auroc_margin``, ``auroc_score`` of its own pairs (None for an
    unreadable image, or without cones).

    Args:
        dataset: Images with a chain of captions each.
        negatives: Captions of other chains drawn for each image, without repetition, all of them where there are fewer;
            at least 1. A caption with the text of one of the image's own is none.
        seed: Of the draw.

    Source: the HierarCaps protocol of Hyper3-CLIP (arXiv 2608.29313), table 5, with PEP's scores (ARGENT, arXiv
        2603.23311). Differs: the published draw of negatives is not known.
    """

    dataset: CaptionChains
    _: KW_ONLY
    negatives: int = 100
    seed: int = 0

    main_metric = "auroc_margin"

    def __post_init__(self) -> None:
        whole_number("negatives", self.negatives, least=1)

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        data = self.dataset
        names = list(dict.fromkeys(text for chain in data.chains for text in chain))
        row = {text: i for i, text in enumerate(names)}
        chains = [[row[text] for text in chain] for chain in data.chains]
        drawn = self._negatives(chains, len(names))
        texts = encoder.encode_texts(names, label="captions")
        encoded = encoder.encode_images(data.images, transform=ResizeCenterCrop.of(model))
        check_embeddings(texts, encoded.embeddings)
        # Pairs, image by image: its own captions by level, then the negatives.
        readable = encoded.indices.tolist()
        if not readable:
            raise DataError("HierarCaps-PEP: no image can be read; expected at least 1.")
        counts = [len(chains[i]) + len(drawn[i]) for i in readable]
        text_rows = torch.tensor([text for i in readable for text in (*chains[i], *drawn[i])])
        image_rows = torch.arange(len(readable)).repeat_interleave(torch.tensor(counts))
        level = torch.tensor(
            [n for i in readable for n in (*range(1, data.levels + 1), *[0] * len(drawn[i]))]
        )
        values = self._values(model, texts, encoded.embeddings, text_rows, image_rows)
        return self._result(values, level, counts, readable)

    def _negatives(self, chains: list[list[int]], texts: int) -> list[list[int]]:
        """Captions of other chains for each image."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn = []
        for own in map(set, chains):
            order = torch.randperm(texts, generator=generator).tolist()
            drawn.append([text for text in order if text not in own][: self.negatives])
        if not any(drawn):
            raise DataError("HierarCaps-PEP: all chains hold the same texts, so that there is no false pair.")
        return drawn

    def _values(
        self, model: EvaluableModel, texts: Tensor, images: Tensor, text_rows: Tensor, image_rows: Tensor
    ) -> dict[str, Tensor]:
        """Way -> value of each pair (N,) in fp64."""
        parts: list[tuple[Tensor, Tensor]] = []
        with evaluating(model) as device:
            for some, other in zip(text_rows.split(_BLOCK), image_rows.split(_BLOCK), strict=True):
                scores = entailment_scores(model.geometry, texts[some].to(device), images[other].to(device))
                if scores is None:
                    break
                parts.append((scores[0].double().cpu(), scores[1].double().cpu()))
        values = {}
        if parts:
            values["angle"], values["margin"] = (torch.cat(column) for column in zip(*parts, strict=True))
        asked: list[list[int]] = [[] for _ in texts]
        places: list[list[int]] = [[] for _ in texts]
        for pair, (text, image) in enumerate(zip(text_rows.tolist(), image_rows.tolist(), strict=True)):
            asked[text].append(image)
            places[text].append(pair)
        own = pair_scores(model, texts, images, asked, query_modality="text", key_modality="image")
        values["score"] = torch.zeros(len(text_rows), dtype=torch.float64)
        values["score"][[pair for mine in places for pair in mine]] = torch.tensor(
            [score for mine in own for score in mine], dtype=torch.float64
        )
        return values

    def _result(
        self, values: dict[str, Tensor], level: Tensor, counts: list[int], readable: list[int]
    ) -> EvaluationResult:
        """Metrics over all pairs and by level; the AUROC of each image as items."""
        data, true = self.dataset, level > 0
        items: dict[str, list[float | None]] = {f"auroc_{way}": [None] * len(data.images) for way in _WAYS}
        metrics: dict[str, float] = {}
        for way, value in values.items():
            metrics |= ranking_metrics(way, value, true)
            for n in range(1, data.levels + 1):
                rows = (level == n) | ~true
                metrics[f"auroc_{way}_level_{n}"] = roc_auc(value[rows].numpy(), true[rows].numpy())
                metrics[f"auroc_{way}_level_{n}_chance"] = 50.0
            parts = zip(readable, value.split(counts), true.split(counts), strict=True)
            for i, mine, right in parts:
                if not bool(right.all()):
                    items[f"auroc_{way}"][i] = roc_auc(mine.numpy(), right.numpy())
        cones = "margin" in values
        return EvaluationResult(
            metrics=metrics,
            items={"key": list(data.keys), **items},
            meta={
                "images": len(data.images),
                "levels": data.levels,
                "true_pairs": int(true.sum()),
                "false_pairs": int((~true).sum()),
                "cones": cones,
                "seed": self.seed,
                **({} if cones else {"main_metric": "auroc_score"}),
            },
        )
