"""CLIP_benchmark with models of hypvl: its own command, with ``--model_type hypvl``, right for every geometry.

    python -m hypvl.integrations.clip_benchmark eval --pretrained checkpoints/meru_vit_b.pth --model meru_vit_b \\
        --dataset wds/imagenetv2 --output "{dataset}.json"

CLIP_benchmark compares images and texts by the cosine. Retrieval and the choice of captions get vectors whose cosines
rank as the model's scores do; zero-shot classification gets the model's own class scores, which are exact for several
prompts of a class; probes get the features. Models of other types in the same process are not touched.
"""

import argparse
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from hypvl.cli.common import run_main
from hypvl.errors import ConfigError, UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from hypvl.integrations.wrapping import Resize

MODEL_TYPE = "hypvl"
#: Value of ``--model`` for a checkpoint that holds its config.
OWN_CONFIG = "hypvl"
_UNUSABLE = {"--load_clfs", "--save_clf"}
_Load = Callable[..., tuple[Any, Callable[..., Any], Callable[..., Any]]]


def main(argv: Sequence[str]) -> int:
    """CLIP_benchmark's command, with hypvl's models among its own and with theirs as defaults.

    Raises:
        ConfigError: For flags that need a vector per class, which only the cosine has, and for what CLIP_benchmark
            refuses, such as the name of a data set.
        UserError: When clip-benchmark is not installed.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--bound", type=float)
    parser.add_argument("--resize", choices=("crop", "squeeze"), default="crop")
    parser.add_argument("--amp", action="store_true")
    own, rest = parser.parse_known_args(argv)
    if rest[:1] == ["eval"]:
        names = {argument.partition("=")[0] for argument in rest}
        if refused := sorted(names & _UNUSABLE):
            raise ConfigError(
                f"{refused[0]}: a class is scored by all of its prompts, not by one vector; leave it out."
            )
        if not names & {"--pretrained_model", "--model"}:
            rest += ["--model", OWN_CONFIG]
        if "--model_type" not in names:
            rest += ["--model_type", MODEL_TYPE]
        if not own.amp and "--no_amp" not in names:
            rest += ["--no_amp"]
    register(bound=own.bound, resize=own.resize)
    from clip_benchmark import cli

    before = sys.argv
    sys.argv = [before[0], *rest]
    try:
        return int(cli.main() or 0)
    except ValueError as error:  # how it refuses names of data sets and splits
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        if not frames[-1].f_globals.get("__name__", "").startswith("clip_benchmark."):
            raise
        raise ConfigError(f"CLIP_benchmark: {error}") from error
    finally:
        sys.argv = before


def register(*, bound: float | None = None, resize: "Resize" = "crop") -> None:
    """Give CLIP_benchmark the model type ``hypvl`` in this process; once is enough.

    Its ``load_clip("hypvl", model_name, pretrained, ...)`` then takes a checkpoint, or a model of another library
    (``"hf:..."``), as ``pretrained``, and as ``model_name`` the config that a checkpoint was trained with, or the name
    of a model (``"hypvl"``: the config in the checkpoint).

    Args:
        bound: See :class:`hypvl.integrations.wrapping.CosineModel`.
        resize: Likewise.

    Raises:
        UserError: When clip-benchmark is not installed.
    """
    try:
        from clip_benchmark import models
        from clip_benchmark.metrics import linear_probe, zeroshot_classification as zero_shot
    except ImportError as error:
        raise UserError(
            "CLIP_benchmark is not installed (or one of the packages it needs): pip install 'hypvl[clip-benchmark]'."
        ) from error
    models.TYPE2FUNC[MODEL_TYPE] = partial(load_model, bound=bound, resize=resize)
    if MODEL_TYPE in models.MODEL_TYPES:
        return
    models.MODEL_TYPES.append(MODEL_TYPE)
    zero_shot.zero_shot_classifier = _for_ours(zero_shot.zero_shot_classifier, _prompt_features)
    zero_shot.run_classification = _for_ours(zero_shot.run_classification, _class_scores)
    # Its own one turns an array of one element into a float, which NumPy 2.4 refuses.
    zero_shot.accuracy = linear_probe.accuracy = accuracy
    featurizer = linear_probe.Featurizer
    linear_probe.Featurizer = lambda model, *given, **named: featurizer(
        getattr(model, "features_only", model), *given, **named
    )


def load_model(
    model_name: str,
    pretrained: str,
    cache_dir: str | None = None,
    device: "str | torch.device" = "cpu",
    *,
    bound: float | None = None,
    resize: "Resize" = "crop",
) -> tuple[Any, Callable[..., Any], Callable[..., Any]]:
    """Model, transform and tokenizer of a checkpoint, as CLIP_benchmark's loaders return them; see :func:`register`.

    Raises:
        CheckpointError, ConfigError: as ``hypvl evaluate``.
        UserError: for a model whose scores are not inner products.
    """
    from hypvl.integrations.clip_benchmark_model import HarnessModel
    from hypvl.integrations.loading import load_model as load
    from hypvl.integrations.wrapping import CosineModel

    config = None if model_name == OWN_CONFIG else model_name
    loaded = load(pretrained, config, device=str(device))
    wrapped = CosineModel(loaded.model, bound=bound, resize=resize)
    return HarnessModel(wrapped), wrapped.pixels, wrapped.tokenizer


def accuracy(output: "Tensor", target: "Tensor", topk: Sequence[int] = (1,)) -> list[float]:
    """Shares in [0, 1] of rows of scores (N, C) whose class (N,) is among the k best, for each k."""
    hits = output.topk(max(topk), dim=1).indices == target[:, None]  # (N, k)
    return [hits[:, :k].any(dim=1).double().mean().item() for k in topk]


def _for_ours(theirs: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    """``ours`` for models with class scores of their own, ``theirs`` for the others."""

    def chosen(model: Any, *given: Any, **named: Any) -> Any:
        function = ours if hasattr(model, "class_scores") else theirs
        return function(model, *given, **named)

    return chosen


def _prompt_features(
    model: Any,
    tokenizer: Callable[[list[str]], "Tensor"],
    classnames: Sequence[str],
    templates: Sequence[str] | Mapping[str, Sequence[str]],
    device: str,
    amp: bool = True,
) -> "list[Tensor]":
    """In place of a vector per class: the features of its prompts, (P_c, D) each."""
    import torch

    features = []
    for name in classnames:
        if isinstance(templates, Mapping):
            prompts = list(templates[name])
        else:
            prompts = [template.format(c=name) for template in templates]
        with torch.no_grad(), torch.autocast(torch.device(device).type, enabled=amp):
            features.append(model.text_features(tokenizer(prompts).to(device)))
    return features


def _class_scores(
    model: Any, classifier: "list[Tensor]", dataloader: Any, device: str, amp: bool = True
) -> "tuple[Tensor, Tensor]":
    """The model's scores of images for classes (N, C), and the labels (N,) or (N, C)."""
    import torch

    scores, labels = [], []
    for images, target in dataloader:
        with torch.no_grad(), torch.autocast(torch.device(device).type, enabled=amp):
            rows = model.class_scores(images.to(device), classifier)
        scores.append(rows.float().cpu())
        labels.append(cast("Tensor", target).cpu())
    return torch.cat(scores), torch.cat(labels)


if __name__ == "__main__":
    raise SystemExit(run_main(main))
