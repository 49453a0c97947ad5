"""Compositionality and paraphrases: two captions with one meaning must both be told from a false one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.data.transforms import ResizeCenterCrop
from hypvl.datasets.composition.choices import Paraphrases
from hypvl.datasets.protocol import check_set
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel
from hypvl.embedding.search import pair_scores
from hypvl.evaluation.candidate_scores import CandidateScoring, joint_scores
from hypvl.evaluation.protocol import EvaluationResult
from hypvl.metrics.choices import PARAPHRASE_CHANCE, paraphrase_hit


@configurable("evaluate")
@dataclass
class ParaphraseChoice(CandidateScoring):
    """ITT and TOT of images with two true captions P1, P2 and a false one N, by the model's own score.

    Metrics, in percent: ``itt_accuracy`` (image to text), both P1 and P2 score above N for the image;
    ``tot_accuracy`` (text only), P1 scores P2 above N and P2 scores P1 above N; each also as ``<name>_<kind>``, and
    ``itt_macro_accuracy`` (the main one), ``tot_macro_accuracy``, the plain means over kinds. Chance is 33.3. A tie is
    a miss; so is an unreadable image in ITT.

    Items, one per entry: ``key`` of its image, ``kind``, ``itt_margin`` and ``tot_margin`` (the smaller score of a true
    caption minus that of the false one; None for an unreadable image).

    Args:
        dataset: Images with two true captions and a false one, at least one.
        scored_by, pair_scorer: Of ITT, see :class:`~hypvl.evaluation.candidate_scores.CandidateScoring`; TOT is scored
            by the embeddings of the texts.

    Source: SugarCrepe++, Dumpala et al. 2024 (arXiv 2406.11171). Differs: the model's own score, not the cosine.
    """

    dataset: Paraphrases

    main_metric = "itt_macro_accuracy"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_set(self.dataset, Paraphrases)
        if not self.dataset.paraphrases:
            raise ValueError("dataset: got no paraphrases; expected at least one.")

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        data, asked = self.dataset, self.dataset.paraphrases
        texts = list(dict.fromkeys(text for one in asked for text in (*one.captions, one.foil)))
        row = {text: i for i, text in enumerate(texts)}
        triples = [[row[text] for text in (*one.captions, one.foil)] for one in asked]
        captions = encoder.encode_texts(texts, label="captions")
        of_image: dict[int, list[int]] = {}
        for i, one in enumerate(asked):
            of_image.setdefault(one.image, []).append(i)
        rows = {image: [text for i in mine for text in triples[i]] for image, mine in of_image.items()}
        scorer = self.scorer(model)
        if scorer is None:
            by_image = self._by_embeddings(model, encoder, captions, rows)
        else:
            by_image = joint_scores(scorer, encoder, data.images, texts, rows)
        itt: list[list[list[float]] | None] = [None] * len(asked)
        for image, scores in by_image.items():
            rest = iter(scores)
            for i in of_image.get(image, []):
                first, second, foil = next(rest), next(rest), next(rest)
                itt[i] = [[first, foil], [second, foil]]
        # Two queries an entry: each caption asks for the other one and the foil.
        queries = [text for first, second, _ in triples for text in (first, second)]
        keys = [[other, foil] for first, second, foil in triples for other in (second, first)]
        by_text = pair_scores(
            model, captions[queries], captions, keys, query_modality="text", key_modality="text"
        )
        tot = [by_text[2 * i : 2 * i + 2] for i in range(len(asked))]
        result = EvaluationResult(
            items={
                "key": [data.keys[one.image] for one in asked],
                "kind": [one.kind for one in asked],
                "itt_margin": [None if rows is None else _margin(rows) for rows in itt],
                "tot_margin": [_margin(rows) for rows in tot],
            },
            meta={"images": len(data.images), "entries": len(asked), **self.scorer_meta(model), **data.meta},
        )
        self._add("itt", [rows is not None and paraphrase_hit(rows) for rows in itt], result)
        self._add("tot", [paraphrase_hit(rows) for rows in tot], result)
        return result

    def _by_embeddings(
        self,
        model: EvaluableModel,
        encoder: CachedEncoder,
        captions: Tensor,
        rows: Mapping[int, Sequence[int]],
    ) -> dict[int, list[float]]:
        """Position of each readable image -> the scores of the captions asked for."""
        images = encoder.encode_images(self.dataset.images, transform=ResizeCenterCrop.of(model))
        positions = images.indices.tolist()
        asked = [rows.get(image, []) for image in positions]
        answers = pair_scores(
            model, images.embeddings, captions, asked, query_modality="image", key_modality="text"
        )
        return dict(zip(positions, answers, strict=True))

    def _add(self, name: str, hits: Sequence[bool], result: EvaluationResult) -> None:
        """Add the accuracy over all entries, over each kind, and the mean over kinds."""
        of_kind: dict[str, list[float]] = {}
        for hit, one in zip(hits, self.dataset.paraphrases, strict=True):
            of_kind.setdefault(one.kind, []).append(100.0 * hit)
        result.add_mean(f"{name}_accuracy", [100.0 * hit for hit in hits], chance=PARAPHRASE_CHANCE)
        result.add_mean(f"{name}_macro_accuracy", *of_kind.values(), chance=PARAPHRASE_CHANCE)
        for kind, values in sorted(of_kind.items()):
            result.add_mean(f"{name}_accuracy_{kind}", values, chance=PARAPHRASE_CHANCE)


def _margin(rows: Sequence[Sequence[float]]) -> float:
    return min(true - false for true, false in rows)
