"""ELEVATER: 20 sets x zero-shot, few-shot 5 / 20 / 50, linear probe and fine-tuning."""

from hypvl.config import LazyCall as L
from hypvl.datasets.classification.elevater import ELEVATER_SETS, elevater_entries, elevater_set
from hypvl.evaluation.prediction_files import PredictionFiles
from hypvl.evaluation.probes.fine_tune import FineTune
from hypvl.evaluation.probes.linear_probe import LinearProbe
from hypvl.evaluation.zero_shot import ZeroShotClassification

from ..encoding import encoding as encoding

roots = {"elevater": "./datasets/elevater"}
# Where class probabilities go, and whose they are; hypvl elevater-submission packs them.
predictions = {"folder": None, "model_name": "hypvl"}
# fixed, or swept: 6 learning rates x 15 weight decays on validation.
tuning = "fixed"
epochs = {"final": 50, "sweep": 10}
_SHOTS = {"few_shot_5": 5, "few_shot_20": 20, "few_shot_50": 50}
_WITH_VALIDATION = ("voc2007classification",)  # the other sets: cut from train


def _split(name: str, split: str):
    return L(elevater_set)(name=name, root="${roots.elevater}", split=split)


def _common(name: str, protocol: str):
    return {
        "metric": elevater_entries()[name].metric,
        "encoding": "${encoding}",
        "predictions": L(PredictionFiles)(
            folder="${predictions.folder}",
            dataset=name,
            protocol=protocol,
            model_name="${predictions.model_name}",
        ),
    }


def _learning(name: str):
    validation = _split(name, "val") if name in _WITH_VALIDATION else None
    return {"train": _split(name, "train"), "test": _split(name, "test"), "validation": validation}


evaluate = {}
for _name in ELEVATER_SETS:
    evaluate[f"{_name}/zero_shot"] = L(ZeroShotClassification)(
        dataset=_split(_name, "test"), ensemble="normalized_mean", **_common(_name, "zero_shot")
    )
    for _protocol, _shots in _SHOTS.items():
        evaluate[f"{_name}/{_protocol}"] = L(LinearProbe)(
            **_learning(_name),
            shots=_shots,
            seeds=[0, 1, 2],
            normalize="standard",
            **_common(_name, _protocol),
        )
    evaluate[f"{_name}/linear_probe"] = L(LinearProbe)(
        **_learning(_name), normalize="standard", **_common(_name, "linear_probe")
    )
    evaluate[f"{_name}/fine_tune"] = L(FineTune)(
        **_learning(_name),
        tuning="${tuning}",
        epochs="${epochs.final}",
        sweep_epochs="${epochs.sweep}",
        **_common(_name, "fine_tune"),
    )
