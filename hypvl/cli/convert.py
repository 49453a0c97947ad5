"""Convert a checkpoint: to a folder that hypvl and the hub load without a config, or to a file of published names."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hypvl.cli.common import CommandParser, checkpoint_path, run_main, show, user_path, user_text
from hypvl.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

EXAMPLES = """
examples:
  a published file, to a folder that every command loads as it is:
  hypvl convert checkpoints/meru_vit_l.pth --train-config meru_vit_l --to output/meru_vit_l
  the last checkpoint of a run, without the state of the training:
  hypvl convert output/run --to output/run_weights
  a file that MERU's code, or HyCoCLIP's, loads:
  hypvl convert output/run --to output/run_official.pth
"""
SUFFIXES = (".pth", ".safetensors")


def build_parser() -> CommandParser:
    """Flags of the command."""
    parser = CommandParser(__doc__, examples=EXAMPLES)
    parser.add_argument(
        "checkpoint_path", metavar="CHECKPOINT", type=checkpoint_path,
        help="weights, .pth or .safetensors, or the folder of a training run (its last checkpoint)",
    )  # fmt: skip
    parser.add_argument(
        "--to", type=user_path, required=True, metavar="PLACE",
        help="a folder (config.json, model.safetensors), new or empty; or a file that ends in .pth or .safetensors: "
        "the weights under the names of the model's published files",
    )  # fmt: skip
    parser.add_argument(
        "--train-config", type=user_text,
        help="config the model was trained with, or a model's name (default: the config in the checkpoint)",
    )  # fmt: skip
    parser.add_argument(
        "--weights", default="model", metavar="NAME",
        help="which weights of the checkpoint: `model`, or a teacher of the run, such as an average (EMA)",
    )  # fmt: skip
    return parser


def main(argv: Sequence[str]) -> int:
    """Load, check, write; what is there is never overwritten."""
    args = build_parser().parse_args(argv)
    place: Path = args.to
    if (place.is_dir() and any(place.iterdir())) or place.is_file():
        raise ConfigError(f"--to: {place} exists; name another place, or remove it.")
    if place.suffix and place.suffix not in SUFFIXES:
        raise ConfigError(
            f"--to: got {place}; expected a folder, or a file that ends in {' or '.join(SUFFIXES)}."
        )
    _write(args, place)
    return 0


def _write(args: argparse.Namespace, place: Path) -> None:
    import torch

    from hypvl.cli.loading import config_of, load_trained, stored_root
    from hypvl.models.hub import save_pretrained

    weights = None if args.weights == "model" else args.weights
    model, content = load_trained(
        args.checkpoint_path, args.train_config, device=torch.device("cpu"), weights=weights
    )
    if place.suffix:
        _write_published(model.state_dict(), place)
        show(f"{place}: the weights under their published names")
        return
    config = config_of(content, args.checkpoint_path, args.train_config)
    root = stored_root(content, args.checkpoint_path, embed_dim=model.embed_dim)
    save_pretrained(model, config, place, root=root)
    show(f"{place}: config.json and model.safetensors; hypvl.from_pretrained({str(place)!r}) loads them")


def _write_published(state_dict: "dict[str, Tensor]", place: Path) -> None:
    import torch
    from safetensors.torch import save

    from hypvl.io.files import write_atomically
    from hypvl.models.convert.published import to_official

    named = {name: tensor.contiguous() for name, tensor in to_official(state_dict).items()}
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.suffix == ".safetensors":
        write_atomically(place, save(named))
    else:
        write_atomically(place, lambda file: torch.save({"model": named}, file))


if __name__ == "__main__":
    raise SystemExit(run_main(main))
