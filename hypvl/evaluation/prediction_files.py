"""Class probabilities of test images as files, in the fields that ELEVATER's leader board reads."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.distributed import is_main
from hypvl.embedding.protocol import EvaluableModel, Stage, count_parameters
from hypvl.io.files import write_output
from hypvl.io.json_text import json_bytes

_DIGITS = 6
#: ELEVATER's sets as its leader board calls them.
LEADERBOARD_NAMES = {
    "caltech101": "caltech-101",
    "cifar10": "cifar-10",
    "cifar100": "cifar-100",
    "country211": "country211",
    "dtd": "dtd",
    "eurosat-clip": "eurosat_clip",
    "fer2013": "fer-2013",
    "fgvc-aircraft-2013b": "fgvc-aircraft-2013b-variants102",
    "flower102": "oxford-flower-102",
    "food101": "food-101",
    "gtsrb": "gtsrb",
    "hateful-memes": "hateful-memes",
    "kitti-distance": "kitti-distance",
    "mnist": "mnist",
    "oxford-iiit-pets": "oxford-iiit-pets",
    "patchcamelyon": "patch-camelyon",
    "rendered-sst2": "rendered-sst2",
    "resisc45-clip": "resisc45_clip",
    "stanfordcar": "stanford-cars",
    "voc2007classification": "voc-2007-classification",
}


@configurable("evaluate")
class PredictionFiles:
    """Writes one JSON file per seed: ``<folder>/<protocol>/<dataset>_seed<seed>.json``.

    Fields: ``model_name``, ``dataset_name``, ``num_trainable_params``, ``num_params``, ``num_visual_params``,
    ``num_backbone_params`` (the last two: those of the image tower up to the stage that is learnt from),
    ``n_shot`` (0 = zero-shot, -1 = all training images), ``rnd_seeds`` (one), ``predictions`` (seeds x images x
    classes, six decimals). hypvl elevater-submission merges the seeds.

    Args:
        folder: For one model's predictions; None = nothing is written.
        dataset: Name of the set; written as the leader board calls it (:data:`LEADERBOARD_NAMES`).
        protocol: Subfolder, such as ``few_shot_5``.
        model_name: Name of the model in the files.
    """

    def __init__(
        self, folder: str | Path | None, *, dataset: str, protocol: str, model_name: str = "hypvl"
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self.dataset = LEADERBOARD_NAMES.get(dataset, dataset)
        self.protocol = protocol
        self.model_name = model_name

    def write(
        self,
        model: EvaluableModel,
        probabilities: Tensor,
        *,
        stage: Stage,
        missing: Sequence[int],
        shots: int,
        seed: int,
        trainable: int,
    ) -> Path | None:
        """Write the predictions of one seed, by the main process; returns the file, or None where nothing is written.

        Args:
            model: Whose parameters are counted.
            probabilities: (N, C) in the order of the set.
            stage: Up to where an image goes through the model.
            missing: Images without prediction; they get the same probability for every class.
            shots: Training images per class, 0 for none, -1 for all.
            seed: Of the draw.
            trainable: Parameters that were trained.

        Raises:
            DataError: when it cannot be written.
        """
        one_of("stage", stage, Stage)
        if self.folder is None or not is_main():
            return None
        total, backbone = count_parameters(model, stage=stage)
        rows = probabilities.double().clone()
        rows[list(missing)] = 1.0 / rows.shape[1]
        content = {
            "model_name": self.model_name,
            "dataset_name": self.dataset,
            "num_trainable_params": trainable,
            "num_params": total,
            "num_visual_params": backbone,
            "num_backbone_params": backbone,
            "n_shot": shots,
            "rnd_seeds": [seed],
            "predictions": [[[round(p, _DIGITS) for p in row] for row in rows.tolist()]],
        }
        path = self.folder / self.protocol / f"{self.dataset}_seed{seed}.json"
        write_output(path, json_bytes(content))
        return path
