"""Write the embeddings of shards, one shard of them for each; a folder that evaluate --embeddings reads."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hypvl.cli.common import CommandParser, check_least, run_main, show, user_path, user_text
from hypvl.errors import ConfigError

if TYPE_CHECKING:
    from hypvl.data.transforms import Transform
    from hypvl.embedding.extract import InputShard
    from hypvl.models.dual_encoder import DualEncoder

EXAMPLES = """
examples:
  hypvl extract --checkpoint-path checkpoints/meru_vit_b.pth --train-config meru_vit_b \\
      --shards 'datasets/redcaps/{00000..00099}.tar' --output-dir output/redcaps_embeddings
  on eight GPUs, each its share of the shards; started again, it continues:
  torchrun --nproc-per-node 8 -m hypvl extract ...
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
        "--shard-size", type=int, default=4096, help="images of a folder, or texts, per shard"
    )
    parser.add_argument(
        "--thumbnails", type=int, default=0, metavar="PIXELS", help="keep small JPEGs of this side"
    )
    parser.add_encoding_arguments()
    parser.add_argument("--amp", choices=("bf16", "fp16"), help="precision of the encoders (default: full)")
    parser.add_argument(
        "--max-bad-fraction", type=float, default=0.1, metavar="SHARE",
        help="of a shard's images that may be unreadable before the shard fails",
    )  # fmt: skip
    return parser


def main(argv: Sequence[str]) -> int:
    """Encode the shards that do not exist yet; 1 if one failed, after the others are done."""
    args = build_parser().parse_args(argv)
    check_least(args, shard_size=1)
    shards = input_shards(args)
    rank, ranks = place_among_ranks()

    import torch

    from hypvl.cli.loading import encoding_of, load_chosen, pick_device
    from hypvl.embedding.extract import extract
    from hypvl.embedding.identity import model_identity
    from hypvl.embedding.protocol import own_tokenizer
    from hypvl.embedding.store import EmbeddingStore

    device = args.device
    if ranks > 1 and device in (None, "cuda") and torch.cuda.is_available():
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    model, _ = load_chosen(args, device=pick_device(device))
    encoding = encoding_of(
        args, amp=args.amp or False, max_bad_fraction=args.max_bad_fraction, progress=rank == 0
    )
    modality = shards[0].modality
    try:
        store = EmbeddingStore(
            args.output_dir, model=model_identity(model), mode="write", thumbnails=args.thumbnails
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    own = shards[rank::ranks]
    done = failed = 0
    for number, shard in enumerate(
        extract(
            model,
            own,
            store=store,
            encoding=encoding,
            transform=_transform(model, args.preprocess),
            tokenizer=own_tokenizer(model),
            stage=args.stage,
            fmt=args.format,
        ),
        start=1,
    ):
        done += shard.rows
        failed += bool(shard.error)
        status = shard.error or ("exists already" if shard.existed else f"{shard.rows} {modality}s")
        status += f", {shard.unreadable} cannot be read" if shard.unreadable else ""
        show(f"[{number}/{len(own)}] {shard.name}: {status}", file=sys.stderr)
    show(f"{args.output_dir}: {done} embeddings in {len(own) - failed} of {len(own)} shards")
    if failed:
        show(
            f"error: {failed} of {len(own)} shards failed; the same command tries them again.",
            file=sys.stderr,
        )
    return 1 if failed else 0


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
    from functools import partial

    from hypvl.data.shards import expand_shards
    from hypvl.datasets.images import Images
    from hypvl.datasets.user_inputs import Texts, image_paths, tar_texts, text_file
    from hypvl.embedding.extract import InputShard, shard_names

    if args.shards is not None:
        places = expand_shards(args.shards)
        named = zip(shard_names(places), places, strict=True)
        if args.text_key is None:
            return [
                InputShard(name, [place], images=partial(Images.from_tars, [place])) for name, place in named
            ]
        member = args.text_key
        return [
            InputShard(name, [place], texts=partial(tar_texts, place, member=member)) for name, place in named
        ]
    size = args.shard_size
    if args.image_dir is not None:
        paths = image_paths(args.image_dir)
        blocks = [paths[start : start + size] for start in range(0, len(paths), size)]
        return [
            InputShard(
                f"{number:05}", [str(path) for path in block], images=partial(Images.from_files, block)
            )
            for number, block in enumerate(blocks)
        ]
    shards = []
    for name, path in zip(shard_names([str(path) for path in args.texts]), args.texts, strict=True):
        rows = text_file(path, text_key=args.text_key or "caption", id_key=args.id_key)
        for start in range(0, len(rows), size):
            part = Texts(rows.texts[start : start + size], rows.ids[start : start + size])
            own = name if len(rows) <= size else f"{name}-{start // size:05}"
            shards.append(InputShard(own, [str(path)], texts=partial(Texts, part.texts, part.ids)))
    return shards


def place_among_ranks() -> tuple[int, int]:
    """Rank and number of the processes that torchrun started; they do not communicate."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


if __name__ == "__main__":
    raise SystemExit(run_main(main))
