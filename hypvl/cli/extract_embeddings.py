"""Write the embeddings of shards, one shard of them for each; a folder that evaluate --embeddings reads."""

import argparse
import functools
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypvl.checks import count_of
from hypvl.cli.common import CommandParser, run_main, show, user_path, user_text
from hypvl.cli.engine import add_engine_arguments, engine_of, named, report_failed
from hypvl.cli.numbers import real, whole
from hypvl.errors import UserError

if TYPE_CHECKING:
    from hypvl.data.transforms import Transform
    from hypvl.embedding.input_shards import InputShard
    from hypvl.models.dual_encoder import DualEncoder

EXAMPLES = """
examples:
  hypvl extract --checkpoint-path checkpoints/meru_vit_b.pth --train-config meru_vit_b \\
      --shards 'datasets/redcaps/{00000..00099}.tar' --output-dir output/redcaps_embeddings
  on eight GPUs, each its share of the shards; started again, it continues:
  torchrun --nproc-per-node 8 -m hypvl extract ...
  in each task of a SLURM array, or on a Ray cluster:
  ... --engine slurm-array
  ... --engine ray
  a folder of images, and a file of texts:
  ... --image-dir photos --output-dir output/photos
  ... --texts captions.jsonl --text-key caption --output-dir output/captions
"""


def build_parser() -> CommandParser:
    """Flags of the command."""
    parser = CommandParser(__doc__, examples=EXAMPLES)
    parser.add_model_arguments()
    inputs = parser.add_mutually_exclusive_group(required=True)
    inputs.add_argument(
        "--shards", type=user_text, metavar="TARS", help="TARs: paths, globs, {000..099}, http(s) addresses"
    )
    inputs.add_argument("--image-dir", type=user_path, metavar="DIR", help="all images below this folder")
    inputs.add_argument(
        "--texts", nargs="+", type=user_path, metavar="FILE",
        help="texts: .jsonl, .csv, .tsv, or .txt with one a line",
    )  # fmt: skip
    parser.add_argument(
        "--output-dir", type=user_path, required=True, metavar="DIR", help="folder of the embeddings"
    )
    parser.add_argument(
        "--text-key", metavar="KEY",
        help="key or column of the texts (default: caption); with --shards: encode their texts, not their images, "
        "found in this member, such as txt or json.caption",
    )  # fmt: skip
    parser.add_argument("--id-key", metavar="KEY", help="key or column of their ids (default: file and line)")
    parser.add_argument(
        "--stage", choices=("embeddings", "features", "trunk"), default="embeddings",
        help="of the model: on the manifold; flat, before it; before the projection",
    )  # fmt: skip
    parser.add_argument(
        "--preprocess", choices=("crop", "squeeze"),
        help="shorter side and central square, as classification does, or the whole image, as retrieval does "
        "(default: crop, or as the model says)",
    )  # fmt: skip
    parser.add_argument(
        "--format", choices=("safetensors", "parquet"), default="safetensors",
        help="of the shards that are written",
    )  # fmt: skip
    parser.add_argument(
        "--shard-size", type=whole(least=1), default=4096, help="images of a folder, or texts, per shard"
    )
    parser.add_argument(
        "--thumbnails", type=whole(least=0), default=0, metavar="PIXELS", help="keep small JPEGs of this side"
    )
    parser.add_encoding_arguments()
    parser.add_argument("--amp", choices=("bf16", "fp16"), help="precision of the encoders (default: full)")
    parser.add_argument(
        "--max-bad-fraction", type=real(least=0, most=1), default=0.1, metavar="SHARE",
        help="of a shard's images that may be unreadable before the shard fails",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=whole(least=1), default=1,
        help="of each process on a CPU; with another number the last bits of embeddings may differ",
    )  # fmt: skip
    add_engine_arguments(parser)
    return parser


def main(argv: Sequence[str]) -> int:
    """Encode the shards that do not exist yet; 1 if one failed, after the others are done."""
    args = build_parser().parse_args(argv)
    engine = engine_of(args, gpus=0.0 if (args.device or "cuda").startswith("cpu") else 1.0)
    rank, ranks = place_among_ranks()
    if ranks > 1 and engine.name == "local":
        engine = replace(engine, name="slurm-array", index=rank, count=ranks)
    shards = input_shards(args)

    import torch

    from hypvl.cli.loading import encoding_of
    from hypvl.embedding.extract import ShardEncoder, extract
    from hypvl.embedding.identity import model_identity

    device = args.device
    if ranks > 1 and device in (None, "cuda") and torch.cuda.is_available():
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    load = LoadChosen(args.checkpoint_path, args.model, args.train_config, device)
    encoding = encoding_of(
        args, amp=args.amp or False, max_bad_fraction=args.max_bad_fraction, progress=rank == 0
    )
    # What other processes encode with is only looked at here.
    model = replace(load, device="cpu")() if engine.in_other_processes else load()
    load_again = load if engine.in_other_processes else functools.partial(_itself, model)
    identity = model_identity(model)
    if identity is None:
        raise UserError("--model: has no weights to know it by, so its embeddings cannot be stored.")
    encoder = ShardEncoder(
        load_again,
        identity,
        encoding,
        _transform(model, args.preprocess),
        stage=args.stage,
        fmt=args.format,
        thumbnails=args.thumbnails,
        threads=args.threads,
    )
    own, modality = len(engine.share(shards)), shards[0].modality
    done, failed = 0, []
    results = extract(encoder, shards, args.output_dir, engine=engine, claim_minutes=args.claim_minutes)
    for number, shard in enumerate(results, start=1):
        done += shard.rows
        failed += [shard] if shard.error else []
        status = shard.error or ("exists already" if shard.existed else count_of(shard.rows, modality))
        status += f", {shard.unreadable} cannot be read" if shard.unreadable else ""
        show(f"[{number}/{own}] {named(shard.name, status)}", file=sys.stderr)
    show(f"{args.output_dir}: {count_of(done, 'embedding')} in {own - len(failed)} of {own} shards")
    return report_failed(failed, own, what="shards")


@dataclass(frozen=True)
class LoadChosen:
    """Loads the model that the flags name, in whichever process it is called; always the same one in each."""

    checkpoint_path: Path | None
    model: str | None
    train_config: str | None
    device: str | None

    def __call__(self) -> "DualEncoder":
        """The model, on its device. Errors as :func:`hypvl.cli.loading.load_chosen`."""
        from hypvl.cli.loading import load_chosen, pick_device

        return load_chosen(argparse.Namespace(**vars(self)), device=pick_device(self.device))[0]


def _itself(model: "DualEncoder") -> "DualEncoder":
    return model


def _transform(model: "DualEncoder", preprocess: str | None) -> "Transform":
    """What ``--preprocess`` says, else the model's own, else the central square."""
    from hypvl.data.transforms import ResizeCenterCrop, Squeeze

    if preprocess is None:
        return ResizeCenterCrop.of(model)
    kind: Any = {"crop": ResizeCenterCrop, "squeeze": Squeeze}[preprocess]
    made: Transform = kind(size=model.image_size, interpolation=model.interpolation)
    return made


def input_shards(args: argparse.Namespace) -> list["InputShard"]:
    """The inputs that the flags name, in shards; only files of texts are read. Raises DataError."""
    from hypvl.data.shards import expand_shards
    from hypvl.datasets.user_inputs import image_paths
    from hypvl.embedding.input_shards import image_shards, tar_shards, text_shards

    if args.shards is not None:
        return tar_shards(expand_shards(args.shards), text_key=args.text_key)
    if args.image_dir is not None:
        return image_shards(image_paths(args.image_dir), size=args.shard_size)
    key = args.text_key or "caption"
    return text_shards(args.texts, text_key=key, id_key=args.id_key, size=args.shard_size)


def place_among_ranks() -> tuple[int, int]:
    """Rank and number of the processes that torchrun started; they do not communicate."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


if __name__ == "__main__":
    raise SystemExit(run_main(main))
