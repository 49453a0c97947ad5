"""Write a model, or embeddings, for other programs: ONNX, hyper-models, FAISS, LanceDB, viewers."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypvl.cli.captioned_data import add_data_arguments
from hypvl.cli.common import CommandParser, run_main, show, table_flags_given, user_path
from hypvl.cli.numbers import whole
from hypvl.cli.viewing import write_view
from hypvl.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from hypvl.geometry.scorers import Modality
    from hypvl.models.dual_encoder import DualEncoder

EXAMPLES = """
examples:
  both towers, to be run without torch:
  hypvl export --to onnx --checkpoint-path output/run --output output/onnx
  the image tower as hyper-models loads it:
  hypvl export --to hyper-models --checkpoint-path output/run --output output/hyper_models
  an index of images, to be searched by texts; of embeddings that are there already:
  hypvl export --to faiss --checkpoint-path output/run --image-dir photos --output output/index
  hypvl export --to lancedb --checkpoint-path output/run --embeddings output/photos --modality image --output output/db
  images and captions to look at in Embedding Atlas, HyperView or FiftyOne:
  hypvl export --to atlas --checkpoint-path output/run --data pairs.csv --label-column class --output output/atlas
"""
MODELS, STORES = ("onnx", "hyper-models"), ("faiss", "lancedb")
VIEWERS = ("atlas", "hyperview", "fiftyone")
TARGETS = (*MODELS, *STORES, *VIEWERS)
# Flags that go with some targets alone
_TAKES = {
    "tower": MODELS,
    "image_dir": (*STORES, *VIEWERS),
    **dict.fromkeys(("embeddings", "texts", "modality", "other", "side", "transform"), STORES),
    **dict.fromkeys(("data", "images_root", "label_column", "limit", "neighbours", "image_pixels"), VIEWERS),
}


def build_parser() -> CommandParser:
    """Flags of the command."""
    parser = CommandParser(__doc__, examples=EXAMPLES)
    parser.add_argument("--to", choices=TARGETS, required=True, help="the program")
    parser.add_model_arguments()
    parser.add_argument(
        "--output", type=user_path, required=True, metavar="DIR", help="folder to write; new or empty"
    )
    parser.add_argument(
        "--tower", choices=("image", "text", "both"),
        help="onnx: which (default: both, where the model has both); hyper-models: the image tower",
    )  # fmt: skip
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--embeddings", type=user_path, metavar="DIR",
        help="for faiss and lancedb: of hypvl extract, or of evaluate --save-embeddings",
    )  # fmt: skip
    what.add_argument(
        "--image-dir", type=user_path, metavar="DIR", help="instead: all images below this folder"
    )
    what.add_argument(
        "--texts",
        type=user_path,
        metavar="FILE",
        help="for faiss and lancedb: texts, .txt with one a line, .csv, .tsv or .jsonl",
    )
    parser.add_argument("--modality", choices=("image", "text"), help="with --embeddings: which of them")
    parser.add_argument(
        "--other", choices=("image", "text"), help="what they are compared with (default: the other modality)"
    )
    parser.add_argument(
        "--side", choices=("key", "query"), help="keys are searched by queries (default: key)"
    )
    parser.add_argument(
        "--transform", metavar="NAME",
        help="with --embeddings: where the folder has several, such as 'Squeeze(size=224)'",
    )  # fmt: skip
    add_data_arguments(parser, default=None, default_is="--image-dir, for viewers")
    view = parser.add_argument_group("viewers (atlas, hyperview, fiftyone)")
    view.add_argument("--label-column", metavar="NAME", help="of the table of --data: labels of the images")
    view.add_argument("--limit", type=whole(least=2), help="at most N images, evenly spread (default: 5000)")
    view.add_argument(
        "--neighbours", type=whole(least=1), help="of each row, by the model's distance (default: 10)"
    )
    view.add_argument(
        "--image-pixels", type=whole(least=16), help="longer side of the images written (default: 256)"
    )
    parser.add_encoding_arguments()
    return parser


def main(argv: Sequence[str]) -> int:
    """Check, load the model, write."""
    args = build_parser().parse_args(argv)
    for name, takers in _TAKES.items():
        if getattr(args, name) is not None and args.to not in takers:
            raise ConfigError(f"--{name.replace('_', '-')}: does not go with --to {args.to}; leave it out.")
    if (flags := table_flags_given(args)) and args.data is None:
        raise ConfigError(f"{flags[0]}: goes with --data and a table; leave it out.")

    from hypvl.export.folder import check_new

    check_new(args.output)
    if args.to in MODELS:
        return _write_model(args)
    return _write_store(args) if args.to in STORES else write_view(args)


def _write_model(args: argparse.Namespace) -> int:
    if args.to == "hyper-models" and args.tower not in (None, "image"):
        raise ConfigError(
            f"--tower: got {args.tower}; hyper-models loads image towers, export texts with --to onnx."
        )

    from hypvl.cli.loading import chosen_model, load_chosen, pick_device
    from hypvl.export import export_onnx
    from hypvl.export.folder import new_folder
    from hypvl.export.onnx import require_exporter

    require_exporter()
    model, content = load_chosen(args, device=pick_device(args.device))
    about = chosen_model(args, content)
    with new_folder(args.output) as folder:
        if args.to == "hyper-models":
            notes = export_onnx(model, "image", folder / "model.onnx", layout="hyper-models", about=about)
            written = {"model.onnx": notes}
        else:
            written = {
                f"{tower}.onnx": export_onnx(model, tower, folder / f"{tower}.onnx", about=about)
                for tower in _towers(args.tower, model)
            }
    for name, notes in written.items():
        show(f"{args.output / name}: {notes['largest_difference']:.2g} from the model in onnxruntime")
    if args.to == "hyper-models":
        show(_how_to_load(args.output, model))
    return 0


def _towers(chosen: str | None, model: "DualEncoder") -> list[Any]:
    there = [name for name, part in (("image", model.visual), ("text", model.textual)) if part is not None]
    return there if chosen is None else ["image", "text"] if chosen == "both" else [chosen]


def _how_to_load(folder: Path, model: "DualEncoder") -> str:
    """A line of Python; the package's own entries are of 512 + 1 numbers and 224 pixels."""
    if (model.embed_dim, model.image_size) == (512, 224):
        return f"hyper_models.load('meru-vit-b', local_path={str(folder / 'model.onnx')!r})"
    place = f"pathlib.Path({str(folder / 'model.onnx')!r})"
    config = f"hyper_models.preprocessing.ImageConfig(size={model.image_size})"
    return (
        f"hyper_models.models.ONNXModel({place}, 'hyperboloid', {model.embed_dim + 1}, image_config={config})"
    )


def _write_store(args: argparse.Namespace) -> int:
    if args.embeddings is None and args.image_dir is None and args.texts is None:
        raise ConfigError(f"--to {args.to}: expected --embeddings, --image-dir or --texts, what to index.")
    if (args.modality is None) != (args.embeddings is None):
        raise ConfigError(
            "--modality: goes with --embeddings, which may hold images and texts; give both or none."
        )
    if args.transform is not None and args.embeddings is None:
        raise ConfigError("--transform: goes with --embeddings; leave it out.")

    from hypvl.cli.loading import load_chosen, pick_device
    from hypvl.embedding.identity import model_identity
    from hypvl.embedding.search_index import build_index
    from hypvl.export.folder import new_folder
    from hypvl.export.stores import require_store, write_faiss, write_lancedb

    require_store(args.to)
    model, _ = load_chosen(args, device=pick_device(args.device))
    modality: Modality = args.modality or ("text" if args.image_dir is None else "image")
    ids, rows, texts = _rows(args, model)
    index = build_index(
        model,
        rows,
        ids,
        side=args.side or "key",
        modality=modality,
        other=args.other or ("text" if modality == "image" else "image"),
        identity=str(model_identity(model)),
    )
    with new_folder(args.output) as folder:
        if args.to == "faiss":
            written = write_faiss(index, folder)
        else:
            written = write_lancedb(index, folder, texts=texts)
    for path in written:
        show(args.output / path.name)
    show(f"{len(ids)} vectors of {index.vectors.shape[1]} numbers, {index.about['geometry']}")
    return 0


def _rows(args: argparse.Namespace, model: "DualEncoder") -> tuple[list[str], "Tensor", list[str] | None]:
    """Ids, embeddings (N, D), and the texts where texts were given."""
    from hypvl.cli.encode_inputs import show_unreadable
    from hypvl.cli.loading import encoding_of
    from hypvl.data.transforms import ResizeCenterCrop
    from hypvl.datasets.images import Images
    from hypvl.datasets.user_inputs import image_paths, text_file
    from hypvl.embedding.encode import CachedEncoder
    from hypvl.embedding.identity import model_identity
    from hypvl.embedding.protocol import own_tokenizer
    from hypvl.embedding.store import EmbeddingStore

    if args.embeddings is not None:
        store = EmbeddingStore(args.embeddings, model=model_identity(model))
        return *store.embeddings_of(args.modality, transform=args.transform), None
    encoding = encoding_of(args)
    if args.texts is not None:
        texts = text_file(args.texts)
        encoder = CachedEncoder(model, encoding=encoding, tokenizer=own_tokenizer(model))
        return list(texts.ids), encoder.encode_texts(texts.texts, label="texts"), list(texts.texts)
    paths = image_paths(args.image_dir)
    encoder = CachedEncoder(model, encoding=encoding)
    encoded = encoder.encode_images(
        Images.from_files(paths), transform=ResizeCenterCrop.of(model), label="images"
    )
    show_unreadable(encoder)
    return [str(paths[i]) for i in encoded.indices.tolist()], encoded.embeddings, None


if __name__ == "__main__":
    raise SystemExit(run_main(main))
