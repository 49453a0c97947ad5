"""Compositionality: choices of a caption, choices of an image, groups of two images and two captions."""

from hypvl.config import LazyCall as L
from hypvl.datasets.composition.crepe import crepe
from hypvl.datasets.composition.mmvp_vlm import mmvp_vlm
from hypvl.datasets.composition.negbench import negbench
from hypvl.datasets.composition.pairs import LAYOUTS, caption_pairs
from hypvl.datasets.composition.spec import spec_captions, spec_images
from hypvl.datasets.composition.sugarcrepe_pp import sugarcrepe_pp
from hypvl.datasets.composition.svo_probes import svo_probes
from hypvl.datasets.composition.whatsup import PARTS, whatsup
from hypvl.evaluation.foil_accuracy import CaptionChoice
from hypvl.evaluation.image_choice import ImageChoice
from hypvl.evaluation.paraphrase_choice import ParaphraseChoice
from hypvl.evaluation.winoground_score import CaptionGroups

from ..encoding import encoding as encoding

roots = {
    "coco": "./datasets/coco",
    "vg": "./datasets/vg",
    "voc2007": "./datasets/voc2007",
    "sugarcrepe_pp": "./datasets/sugarcrepe_pp",
    "whatsup": "./datasets/whatsup",
    "negbench": "./datasets/negbench",
    "crepe": "./datasets/crepe",
    "spec": "./datasets/spec",
    "svo_probes": "./datasets/svo_probes",
    "mmvp_vlm": "./datasets/mmvp_vlm",
    **{name: f"./datasets/{name}" for name in LAYOUTS},
}
scored_by = "embeddings"  # "pair_scorer": image and caption together, by the model's matching head
_by = {"scored_by": "${scored_by}", "encoding": "${encoding}"}
_negbench = {
    "coco": ("COCO_val_mcq_llama3.1_rephrased.csv", "${roots.coco}/val2017"),
    "voc2007": ("VOC2007_mcq_llama3.1_rephrased.csv", "${roots.voc2007}/VOCdevkit/VOC2007/JPEGImages"),
}
_captions = {
    **{
        f"whatsup_{part}": L(whatsup)(
            root="${roots.whatsup}",
            part=part,
            images="${roots.coco}/val2017" if part.startswith("coco") else None,
        )
        for part in PARTS
    },
    **{
        f"negbench_{name}": L(negbench)(path="${roots.negbench}/" + file, images=images)
        for name, (file, images) in _negbench.items()
    },
    **{
        f"crepe_{negatives}": L(crepe)(root="${roots.crepe}", negatives=negatives, images="${roots.vg}")
        for negatives in ("atom", "swap", "negate")
    },
    "spec_captions": L(spec_captions)(root="${roots.spec}"),
}
_captions_of_images = {
    "spec_images": L(spec_images)(root="${roots.spec}"),
    "svo_probes": L(svo_probes)(root="${roots.svo_probes}", images=None),
}
_groups = {
    "mmvp_vlm": L(mmvp_vlm)(root="${roots.mmvp_vlm}", prompt="a photo of {}"),
    **{name: L(caption_pairs)(name=name, root="${roots." + name + "}") for name in LAYOUTS},
}


def _main(name: str) -> str:
    """The published figure."""
    if name in _groups:
        return "image_score" if name in ("cola", "mmvp_vlm") else "group_score"
    return "macro_accuracy" if name.startswith(("crepe", "spec")) else "accuracy"


evaluate = {
    "sugarcrepe_pp": L(ParaphraseChoice)(
        dataset=L(sugarcrepe_pp)(root="${roots.sugarcrepe_pp}", images="${roots.coco}/val2017"), **_by
    ),
    **{
        name: L(CaptionChoice)(dataset=dataset, main_metric=_main(name), **_by)
        for name, dataset in _captions.items()
    },
    **{
        name: L(ImageChoice)(dataset=dataset, main_metric=_main(name), **_by)
        for name, dataset in _captions_of_images.items()
    },
    **{
        name: L(CaptionGroups)(dataset=dataset, main_metric=_main(name), **_by)
        for name, dataset in _groups.items()
    },
}
