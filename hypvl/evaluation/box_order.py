"""Parts and wholes: whether a box lies nearer the root than its image, and whether its cone contains the image."""

from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import number, whole_number
from hypvl.data.transforms import Squeeze
from hypvl.datasets.hierarchy.boxes import BoxedImages
from hypvl.diagnostics import audit
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel, check_embeddings, evaluating
from hypvl.errors import DataError
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.geometry.base import Cones
from hypvl.metrics.chains import order_hits


@configurable("evaluate")
@dataclass
class BoxOrder(Evaluator):
    """Order and entailment of parts (general) and wholes (specific), the pairs that HyCoCLIP is trained on.

    Four kinds of pairs, general -> specific: ``image``, crop of a box -> its whole image; ``text``, phrase of a box ->
    caption; ``whole``, caption -> image; ``box``, phrase -> crop.

    Metrics of each kind, in percent: ``<kind>_entailment``, pairs whose general member's cone contains the specific
    member (in every factor of a product), and ``<kind>_entailment_shuffled``, the same with shuffled partners, both
    only where the geometry has cones (``image_entailment`` is the main metric then); ``<kind>_radius_order``, pairs
    whose general member lies nearer the root (a tie counts half), with ``_null``, ``_null_std`` and ``_null_quantile``
    of shuffled partners (:func:`hypvl.diagnostics.audit.radial_order`). ``radius_<name>``: mean distances to the root
    of ``box_image``, ``image``, ``box_text`` and ``text``; to the mean of all of them where there is no root.

    Items, one per box whose image can be read: ``key``, ``phrase``, ``radius_box_image``, ``radius_image``,
    ``radius_box_text``, ``radius_text``, and ``entails_image``, ``entails_text`` (None without cones).

    Args:
        aperture_factor: Factor > 0 of the half apertures (HyCoCLIP trains with 1.2 within a modality, 0.7 across).
        rounds: Number of shuffles of the null, at least 2.

    Source: HyCoCLIP (Pal et al. 2025, arXiv 2410.06912), section 3.
    """

    dataset: BoxedImages
    _: KW_ONLY
    aperture_factor: float = 1.0
    rounds: int = 200

    main_metric = "image_entailment"

    def __post_init__(self) -> None:
        number("aperture_factor", self.aperture_factor, above=0)
        whole_number("rounds", self.rounds, least=2)

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        data = self.dataset
        transform = Squeeze.of(model)
        images = encoder.encode_images(data.images, transform=transform, label="images")
        crops = encoder.encode_images(data.crops, transform=transform, label="boxes")
        phrases = [part.phrase for part in data.parts]
        names = list(dict.fromkeys([*data.captions, *phrases]))
        keys = encoder.encode_texts(names, label="texts")
        check_embeddings(images.embeddings, crops.embeddings, keys)
        text = {name: row for row, name in enumerate(names)}
        image_row = {image: row for row, image in enumerate(images.indices.tolist())}
        boxes = [
            (row, box) for row, box in enumerate(crops.indices.tolist()) if data.parts[box].image in image_row
        ]
        wholes = sorted({data.parts[box].image for _, box in boxes})
        if len(wholes) < 2:
            raise DataError(
                f"boxes: {len(wholes)} readable images with boxes; expected at least 2 to compare."
            )
        own = [data.parts[box].image for _, box in boxes]
        with evaluating(model) as device:
            embedded = {
                "box_image": crops.embeddings[[row for row, _ in boxes]],
                "image": images.embeddings[[image_row[image] for image in own]],
                "box_text": keys[[text[phrases[box]] for _, box in boxes]],
                "text": keys[[text[data.captions[image]] for image in own]],
                "whole_image": images.embeddings[[image_row[image] for image in wholes]],
                "whole_text": keys[[text[data.captions[image]] for image in wholes]],
            }
            embedded = {name: rows.to(device) for name, rows in embedded.items()}
            far = dict(zip(embedded, audit.root_distances(model.geometry, *embedded.values()), strict=True))
            kinds = {
                "image": ("box_image", "image"),
                "text": ("box_text", "text"),
                "whole": ("whole_text", "whole_image"),
                "box": ("box_text", "box_image"),
            }
            result = EvaluationResult()
            cones = model.geometry.cones
            for kind, (general, specific) in kinds.items():
                if cones is not None:
                    self._add_entailment(result, cones, kind, embedded[general], embedded[specific])
            for kind, (general, specific) in kinds.items():
                self._add_order(result, f"{kind}_radius_order", far[general].cpu(), far[specific].cpu())
        held = {
            kind: [
                None if cones is None else hit > 0 for hit in result.samples.get(f"{kind}_entailment", own)
            ]
            for kind in ("image", "text")
        }
        distances = {name: far[name].cpu().tolist() for name in ("box_image", "image", "box_text", "text")}
        for name, values in distances.items():
            result.metrics[f"radius_{name}"] = sum(values) / len(values)
        result.items = {
            "key": [data.keys[image] for image in own],
            "phrase": [phrases[box] for _, box in boxes],
            **{f"radius_{name}": values for name, values in distances.items()},
            **{f"entails_{kind}": hits for kind, hits in held.items()},
        }
        result.meta = {
            "images": len(data.images),
            "boxes": len(data.parts),
            "pairs": len(own),
            "aperture_factor": self.aperture_factor,
            "unreadable": len(images.bad),
            "unreadable_first": [reason for _, reason in images.bad[:10]],
            **({} if cones is not None else {"main_metric": "image_radius_order"}),
        }
        return result

    def _add_entailment(
        self, result: EvaluationResult, cones: Cones, kind: str, general: Tensor, specific: Tensor
    ) -> None:
        aperture = self.aperture_factor * cones.half_aperture(general)
        partner = audit.derangement(len(general), generator=torch.Generator().manual_seed(0))
        for end, other in (("", specific), ("_shuffled", specific[partner.to(specific.device)])):
            holds = (cones.exterior_angle(general, other) <= aperture).all(-1)
            result.add_mean(f"{kind}_entailment{end}", (100.0 * holds.double()).tolist())

    def _add_order(self, result: EvaluationResult, name: str, general: Tensor, specific: Tensor) -> None:
        order = audit.radial_order(
            general, specific, generator=torch.Generator().manual_seed(0), rounds=self.rounds
        )
        for key, value in order.items():
            result.metrics[name + key.removeprefix("auc")] = 100.0 * value
        result.add_mean(name, order_hits(general, specific))
