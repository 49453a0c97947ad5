"""The published models as compositions of hypvl's parts: geometry, scorer, objective, alphas.

`features[name]` of the number files are what comes out of a projection without its learned alpha.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hypvl.config import LazyConfig, instantiate
from hypvl.geometry.base import Geometry
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scorers import Cosine, ExteriorAngle, NegativeDistance, Scorer
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import LossOutput, Objective, PairContext, View
from hypvl.models.convert.meru import to_official

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NOUNS = {"CLIP": "clip", "MERU": "meru", "ATMG": "clip", "HyCoCLIP": "hycoclip"}
PUBLISHED_ENTAIL_WEIGHT = 0.2
# The published angle adds eps = 1e-8 within its arc cosine, which the slope there amplifies. In the files of this
# repository that moves ATMG's scores and losses by less than 1e-7, in two cases outside of them (other files of the
# same names, HYPVL_REFERENCE_DIR) by 2.1e-7. Everything else agrees to 1e-7.
_ATMG_TOLERANCE, _TOLERANCE = 1e-6, 1e-7

VIEWS = {
    "image": View.parse("image"),
    "text": View.parse("text"),
    "box_image": View.parse("image:box_image"),
    "box_text": View.parse("text:box_text"),
}


def tolerance(name: str) -> float:
    """What values of a published model may differ by, by the name the number files use."""
    return _ATMG_TOLERANCE if name.split("_", maxsplit=1)[0] == "ATMG" else _TOLERANCE


class Parts(nn.Module):
    """Geometry, scorer, alphas and objective of one published model."""

    def __init__(self, geometry: Geometry, scorer: Scorer, objective: Objective, *, alphas: bool) -> None:
        super().__init__()
        self.geometry, self.scorer, self.objective = geometry, scorer, objective
        self.alphas = nn.ParameterDict(
            {m: nn.Parameter(torch.zeros(())) for m in ("image", "text")} if alphas else {}
        )

    def embed(self, features: Tensor, *, modality: str) -> Tensor:
        return self.geometry.lift(features)

    def raw_scalars(self) -> dict[str, nn.Parameter]:
        """The published names of the learned scalars."""
        named: dict[str, Any] = {"logit_scale": self.scorer.log_scale}
        if hasattr(self.geometry, "log_curv"):
            named["curv"] = self.geometry.log_curv
        for modality, name in (("image", "visual_alpha"), ("text", "textual_alpha")):
            if modality in self.alphas:
                named[name] = self.alphas[modality]
        return named

    @torch.no_grad()
    def constrain_(self) -> None:
        self.geometry.constrain_()
        self.scorer.constrain_()
        for alpha in self.alphas.values():
            alpha.clamp_(max=0.0)

    @torch.no_grad()
    def half_aperture(self, features: Tensor, *, modality: str) -> Tensor:
        """Apertures of unscaled features."""
        scale = self.alphas[modality].exp() if self.alphas else 1.0
        assert self.geometry.cones is not None
        return self.geometry.cones.half_aperture(self.embed(features * scale, modality=modality))

    def loss(self, features: dict[str, Tensor], **batch: Tensor) -> LossOutput:
        """The objective on unscaled features by view name; ``batch`` holds what stands beside them (box_owner)."""
        scaled = {
            VIEWS[name]: x * self.alphas[VIEWS[name].modality].exp() if self.alphas else x
            for name, x in features.items()
            if VIEWS[name] in self.objective.needs
        }
        return self.objective(PairContext(scaled, batch=batch, model=self))


def build(name: str, constructor: dict[str, Any]) -> Parts:
    """A published model's parts in double precision, by the name the number files use."""
    family = name.split("_", maxsplit=1)[0]
    if family not in NOUNS:
        raise KeyError(f"{name}: no recipe of this name in tests/parity/recipes.py")
    objective = noun(NOUNS[family], entail_weight=float(constructor.get("entail_weight", 0.0)))
    if family == "CLIP":
        return Parts(Sphere(), Cosine(), objective, alphas=False).double()
    curvature = {"curv_init": constructor["curv_init"], "learn_curv": constructor["learn_curv"]}
    geometry: Geometry = Lorentz(**curvature, curv_range=5.0) if family == "ATMG" else Lorentz(**curvature)
    scorer: Scorer = ExteriorAngle() if family == "ATMG" else NegativeDistance()
    return Parts(geometry, scorer, objective, alphas=True).double()


def noun(name: str, *, entail_weight: float) -> Objective:
    """The objective of ``configs/common/objective/<name>.py``; its entailment terms at another total weight."""
    cfg = LazyConfig.load(CONFIGS / "common" / "objective" / f"{name}.py").objective
    for key in cfg.weights:
        if key.endswith("entailment"):
            cfg.weights[key] *= entail_weight / PUBLISHED_ENTAIL_WEIGHT
    return instantiate(cfg)


def with_scalars(parts: Parts, scalars: dict[str, float]) -> Parts:
    """Set the learned scalars by their published names, as read (log domain)."""
    for key, parameter in parts.raw_scalars().items():
        parameter.data.fill_(scalars[key])
    return parts


def official_to_ours(model: nn.Module) -> dict[str, str]:
    """Official name -> our name of each tensor of a model, through the key table of the converters."""
    state = model.state_dict()
    ours = {tensor.data_ptr(): name for name, tensor in state.items()}
    return {name: ours[t.data_ptr()] for name, t in to_official(state).items() if t.data_ptr() in ours}
