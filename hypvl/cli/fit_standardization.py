"""Fit the mean embedding of images and of texts, for --standardize (I0T_post), on the data of --config."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypvl.cli.common import (
    CommandParser,
    config_parser,
    encoding_overrides,
    load_config,
    run_main,
    show,
    user_path,
)
from hypvl.cli.numbers import whole
from hypvl.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from hypvl.evaluation.mean_removal import ModalityMeans
    from hypvl.models.dual_encoder import DualEncoder

EXAMPLES = """
examples:
  on the images and captions of an evaluation:
  hypvl fit-standardization --checkpoint-path output/clip/checkpoint_final.pth \\
      --config zero_shot_retrieval --only coco
  on 65,536 samples of the data the model was trained on, and into a checkpoint of its own:
  hypvl fit-standardization --checkpoint-path output/clip/checkpoint_final.pth \\
      --train-samples 65536 --checkpoint-output output/clip/checkpoint_i0t.pth
  then:
  hypvl evaluate ... --standardize output/clip/checkpoint_final_standardization.safetensors
"""
SUFFIX = "_standardization.safetensors"


def main(argv: Sequence[str]) -> int:
    """Fit and write."""
    args = build_parser().parse_args(argv)
    if (args.config is None) == (args.train_samples is None):
        raise ConfigError(
            "fit_standardization: give either --config with an evaluation, or --train-samples N for the training data."
        )
    if args.model is not None and (args.config is None or args.checkpoint_output is not None):
        raise ConfigError(
            f"--model: {args.model} has no training config, so neither --train-samples nor --checkpoint-output; give "
            "--config, and --standardize the result."
        )
    evaluation = None
    if args.config is not None:
        evaluation = load_config(
            args.config, [*encoding_overrides(args), *args.overrides], required=("evaluate",), prefix="eval_"
        )
        _check_one(evaluation, args)

    from hypvl.cli.loading import load_chosen, pick_device, results_folder
    from hypvl.cli.mean_removal import add_centering_
    from hypvl.config import instantiate
    from hypvl.evaluation.mean_removal import check_suffix, fit, model_fingerprint, save

    stem = "model" if args.model is not None else args.checkpoint_path.stem
    output = results_folder(args) / (stem + SUFFIX) if args.output is None else args.output
    check_suffix(output)
    model, content = load_chosen(args, device=pick_device(args.device))
    fingerprint = model_fingerprint(model.state_dict())
    if evaluation is not None:
        name = next(iter(evaluation.evaluate)) if args.only is None else args.only
        evaluator = instantiate(evaluation.evaluate[name])
        means = fit(evaluator, model, fingerprint=fingerprint, set_name=f"{name} of {args.config}")
    else:
        means = _on_training_data(model, content, args, fingerprint)
    save(means, output)
    show(
        f"{output}: means of {means.images} images and {means.texts} texts ({means.set_name}), "
        f"{(means.image_mean - means.text_mean).norm().item():.4f} apart"
    )
    if args.checkpoint_output is not None:
        add_centering_(model, means.image_mean, means.text_mean)
        _write_checkpoint(args.checkpoint_output, model, content, _config_text(content, args), means)
        show(f"{args.checkpoint_output}: the model with these means inside")
    return 0


def build_parser() -> CommandParser:
    """Flags of the command."""
    parser = config_parser(__doc__, examples=EXAMPLES, config_required=False)
    parser.add_model_arguments()
    parser.add_argument("--only", metavar="NAME", help="which evaluation of the config")
    parser.add_argument(
        "--train-samples", type=whole(least=1), help="fit on the first N samples of the training data instead"
    )
    parser.add_argument(
        "--output", type=user_path, help=f".safetensors or .pt (default: <checkpoint>{SUFFIX})"
    )
    parser.add_argument(
        "--checkpoint-output", type=user_path,
        help="also write a checkpoint whose model has the means inside, .pth: every command takes it as it is",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=whole(least=1), help="images, or texts, per forward pass")
    parser.add_argument("--num-workers", type=whole(least=0), help="processes that read images")
    return parser


def _check_one(config: "DictConfig", args: argparse.Namespace) -> None:
    names = [str(name) for name in config.evaluate]
    if args.only is None and len(names) != 1:
        raise ConfigError(f"--only: missing; {args.config} has {', '.join(names)}, name the one to fit on.")
    if args.only is not None and args.only not in names:
        raise ConfigError(
            f"--only: {args.only!r} is not in {args.config}; expected one of {', '.join(names)}."
        )


def _on_training_data(
    model: "DualEncoder", content: dict[str, Any], args: argparse.Namespace, fingerprint: str
) -> "ModalityMeans":
    import torch

    from hypvl.cli.loading import config_of
    from hypvl.config import LazyConfig, instantiate
    from hypvl.data.sample import check_dataset, prepare_dataset
    from hypvl.data.stream_loader import open_loader
    from hypvl.embedding.encode import Encoding
    from hypvl.evaluation.mean_removal import MeanRecorder
    from hypvl.training.data_fit import check_data_fits, take_from_model

    config = config_of(content, args.checkpoint_path, args.train_config, parts=("model", "dataset"))
    config = LazyConfig.apply_overrides(config, args.overrides)
    if "dataset" not in config:
        raise ConfigError(
            "--train-samples: the training config has no dataset; give --train-config, or --config."
        )
    dataset = instantiate(config.dataset)
    check_dataset(dataset)
    take_from_model(model, dataset)
    check_data_fits(model, dataset)
    prepare_dataset(dataset)
    batch_size = min(256 if args.batch_size is None else args.batch_size, args.train_samples)
    recorder, left = MeanRecorder(model), args.train_samples
    device = next(model.parameters()).device
    loader = open_loader(
        dataset,
        global_batch_size=batch_size,
        rank=0,
        world_size=1,
        num_workers=Encoding(num_workers=args.num_workers).workers,
        seed=0,
        pin_memory=device.type == "cuda",
    )
    with loader, torch.inference_mode():
        for batch in loader:
            recorder.encode_image(batch["image"][:left].to(device))
            recorder.encode_text(batch["text"][:left].to(device))
            left -= batch_size
            if left <= 0:
                break
    loader.bad.check(final=True)
    set_name = f"{args.train_samples} samples of the training data"
    return recorder.result(fingerprint=fingerprint, set_name=set_name)


def _config_text(content: dict[str, Any], args: argparse.Namespace) -> str:
    """The whole training config as YAML, whose model has one more feature transform per modality.

    The one inside a checkpoint is changed as data: nothing is built from it, so nothing in it is refused.
    """
    from hypvl.cli.loading import raw_config
    from hypvl.config import LazyCall, LazyConfig
    from hypvl.config.plain import to_plain
    from hypvl.config.reader import dump_yaml, stored_data
    from hypvl.encoders.feature_transforms import Centering
    from hypvl.models.hub import load_config as load_model_config

    stored: Any = (
        raw_config(content, args.checkpoint_path)
        if args.train_config is None
        else LazyConfig.to_yaml(load_model_config(args.train_config))
    )
    source = str(args.checkpoint_path)
    config: Any = stored_data(stored, source=source)
    for key in ("image_transforms", "text_transforms"):
        given = config["model"].get(key) or []
        centering = to_plain(LazyCall(Centering, partial=True)(), source=key)
        config["model"][key] = [*(given if isinstance(given, list) else [given]), centering]
    return dump_yaml(to_plain(config, source=source))


def _write_checkpoint(
    path: Path, model: "DualEncoder", content: dict[str, Any], config: str, means: "ModalityMeans"
) -> None:
    """The model with its means, the config that builds it, and where both come from; no optimizer, no root."""
    from hypvl.io.tensors import write_torch
    from hypvl.models.checkpoint_io import FORMAT_VERSION

    entries: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "model": {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()},
        "config": config,
        "standardization": means.meta(),
        **{key: content[key] for key in ("iteration", "provenance") if key in content},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_torch(path, entries)


if __name__ == "__main__":
    raise SystemExit(run_main(main))
