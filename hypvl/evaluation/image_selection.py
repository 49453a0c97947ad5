"""Association: whether the images that score highest for a caption are those that it belongs to."""

from dataclasses import KW_ONLY, dataclass
from math import fsum

from hypvl.allowlist import configurable
from hypvl.datasets.composition.choices import Selections
from hypvl.datasets.protocol import check_set
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel
from hypvl.evaluation.candidate_scores import CandidateScoring
from hypvl.evaluation.protocol import EvaluationResult
from hypvl.metrics.choices import selection_jaccard, selection_jaccard_chance


@configurable("evaluate")
@dataclass
class ImageSelection(CandidateScoring):
    """Jaccard index of the right images of a caption and as many that score highest, by its text-to-image score.

    Metrics, in percent, each with its ``_chance``: ``jaccard``, the mean over captions, and ``jaccard_<kind>`` of each
    kind. A tie goes to the wrong image; a caption one of whose images cannot be read gets 0.

    Items, one per caption: ``caption``, ``kind``, ``right`` (keys of the right images), ``scores`` (of all candidates,
    None where one cannot be read), ``jaccard``.

    Args:
        dataset: Captions with images to select from, at least one.
        scored_by, pair_scorer: See :class:`~hypvl.evaluation.candidate_scores.CandidateScoring`.

    Source: Bitton et al. 2022, WinoGAViL (arXiv 2207.12576). Differs: the model's own score in place of the cosine.
    """

    dataset: Selections
    _: KW_ONLY

    main_metric = "jaccard"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_set(self.dataset, Selections)
        if not self.dataset.selections:
            raise ValueError("dataset: got no captions; expected at least one.")

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        data, selections = self.dataset, self.dataset.selections
        scored = self.image_scores(
            model,
            encoder,
            data.images,
            [one.caption for one in selections],
            [one.images for one in selections],
        )
        values = [
            0.0 if scores is None else selection_jaccard(scores, one.right)
            for scores, one in zip(scored, selections, strict=True)
        ]
        chances = [selection_jaccard_chance(len(one.images), sum(one.right)) for one in selections]
        result = EvaluationResult(
            items={
                "caption": [one.caption for one in selections],
                "kind": [one.kind for one in selections],
                "right": [
                    [data.keys[image] for image, right in zip(one.images, one.right, strict=True) if right]
                    for one in selections
                ],
                "scores": scored,
                "jaccard": values,
            },
            meta={
                "images": len(data.images),
                "captions": len(selections),
                **self.scorer_meta(model),
                **data.meta,
            },
        )
        members = {"jaccard": list(range(len(selections)))}
        for i, one in enumerate(selections):
            members.setdefault(f"jaccard_{one.kind}", []).append(i)
        for name, own in sorted(members.items()):
            chance = fsum(chances[i] for i in own) / len(own)
            result.add_mean(name, [values[i] for i in own], chance=chance)
        return result
