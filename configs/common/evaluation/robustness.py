"""ImageNet's variants, ObjectNet, ImageNet-O as outliers, and sets of DataComp and CLIP_benchmark from the hub."""

from hypvl.config import LazyCall as L
from hypvl.datasets.classification.hub_sets import hub_set
from hypvl.datasets.classification.imagenet_variants import FOLDERS, imagenet_variant, objectnet
from hypvl.datasets.classification.outliers import imagenet_o
from hypvl.evaluation.outliers import OutlierDetection
from hypvl.evaluation.zero_shot import ZeroShotClassification

from ..encoding import encoding as encoding

roots = {"eval": "./datasets/eval"}
download = True
ensemble = "model"  # or normalized_mean, raw_mean, tangent_mean, score_mean
_place = {"root": "${roots.eval}", "download": "${download}"}
#: Sets of DataComp or CLIP_benchmark that no other suite has.
_hub = (
    "vtab/svhn",
    "vtab/clevr_closest_object_distance",
    "vtab/kitti_closest_vehicle_distance",
    "vtab/dmlab",
    "voc2007",
    "fer2013",
)
_sets = {
    **{name.replace("-", "_"): L(imagenet_variant)(name=name, **_place) for name in FOLDERS},
    "objectnet": L(objectnet)(**_place),
    **{name.rpartition("/")[2]: L(hub_set)(name=name, split="test", **_place) for name in _hub},
}
evaluate = {
    name: L(ZeroShotClassification)(
        dataset=dataset, prompts=None, ensemble="${ensemble}", metric="accuracy", encoding="${encoding}"
    )
    for name, dataset in _sets.items()
}
evaluate["imagenet_o"] = L(OutlierDetection)(
    dataset=L(imagenet_o)(root="${roots.eval}", imagenet="${roots.eval}/imagenet/val"),
    prompts=None,
    ensemble="${ensemble}",
    scale=100.0,
    encoding="${encoding}",
)
