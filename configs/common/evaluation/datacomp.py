"""DataComp's 38 tasks under its own keys: sets of its repositories, COCO and Flickr30k, and WinoGAViL."""

from hypvl.config import LazyCall as L
from hypvl.datasets.classification.hub_sets import hub_set
from hypvl.datasets.classification.webdataset import SampleGroups
from hypvl.datasets.composition.winogavil import winogavil
from hypvl.datasets.retrieval.coco import coco_karpathy, flickr30k
from hypvl.evaluation.image_selection import ImageSelection
from hypvl.evaluation.retrieval import ZeroShotRetrieval
from hypvl.evaluation.zero_shot import ZeroShotClassification
from hypvl.report.datacomp_tasks import TASKS

from ..encoding import encoding as encoding

roots = {
    "datacomp": "./datasets/datacomp",
    "coco": "./datasets/coco",
    "flickr30k": "./datasets/flickr30k",
    "winogavil": "./datasets/winogavil",
}
download = True
template = None  # WinoGAViL's caption with {} for the cue; None = the cue with its article
ensemble = "model"  # or normalized_mean, raw_mean, tangent_mean, score_mean
#: Groups of images, in the order of their numbers in the samples.
groups = {
    "fmow": L(SampleGroups)(column=0, names=["asia", "europe", "africa", "americas", "oceania", "other"]),
    "dollar_street": L(SampleGroups)(column=0, names=["q1", "q2", "q3", "q4"]),
    "geode": L(SampleGroups)(
        column=0, names=["africa", "americas", "east_asia", "europe", "southeast_asia", "west_asia"]
    ),
}
_metrics = {
    "fgvc_aircraft": "mean_per_class",
    "vtab/caltech101": "mean_per_class",
    "vtab/flowers": "mean_per_class",
    "vtab/pets": "mean_per_class",
    "wilds/fmow": "worst_group_top1_accuracy",
    "wilds/iwildcam": "macro_f1",
    "dollar_street": "worst_group_top5_accuracy",
    "geode": "worst_group_top1_accuracy",
}
_others = {
    "retrieval/flickr_1k_test_image_text_retrieval": L(flickr30k)(root="${roots.flickr30k}"),
    "retrieval/mscoco_2014_5k_test_image_text_retrieval": L(coco_karpathy)(
        root="${roots.coco}", captions_per_image=5
    ),
    "misc/winogavil": L(winogavil)(root="${roots.winogavil}", template="${template}"),
}
evaluate = {
    key: L(ZeroShotClassification)(
        dataset=L(hub_set)(
            name=f"{key}_test",
            organisation="djghosh",
            root="${roots.datacomp}",
            groups=f"${{groups.{part}}}" if (part := key.rpartition("/")[2]) in groups else None,
            download="${download}",
        ),
        prompts=None,
        ensemble="${ensemble}",
        metric=_metrics.get(key, "accuracy"),
        encoding="${encoding}",
    )
    for key in TASKS
    if key not in _others
} | {
    key: L(ImageSelection)(dataset=dataset, encoding="${encoding}")
    if key == "misc/winogavil"
    else L(ZeroShotRetrieval)(
        dataset=dataset, ks=[1], metric="mean_recall", resize="crop", encoding="${encoding}"
    )
    for key, dataset in _others.items()
}
