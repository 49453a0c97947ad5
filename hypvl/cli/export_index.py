"""Write embeddings as vectors whose inner products rank as the model does, for exact search."""

from collections.abc import Sequence

from hypvl.cli.common import CommandParser, run_main, show, user_path

EXAMPLES = """
examples:
  a gallery of images to be searched by texts:
  hypvl export-index --embeddings output/photos --modality image --output-dir output/photos_index \\
      --checkpoint-path checkpoints/meru_vit_b.pth --train-config meru_vit_b
  the queries, in the form of queries, and a FAISS index of the keys:
  ... --embeddings output/captions --modality text --side query --output-dir output/captions_queries
  ... --faiss
"""


def build_parser() -> CommandParser:
    """Flags of the command."""
    parser = CommandParser(__doc__, examples=EXAMPLES)
    parser.add_model_arguments()
    parser.add_argument(
        "--embeddings", type=user_path, required=True, metavar="DIR",
        help="of extract_embeddings.py or --save-embeddings",
    )  # fmt: skip
    parser.add_argument("--modality", choices=("image", "text"), required=True, help="which of them")
    parser.add_argument(
        "--other", choices=("image", "text"), help="what they are compared with (default: the other modality)"
    )
    parser.add_argument(
        "--side", choices=("key", "query"), default="key",
        help="keys are searched by queries; the two have different vectors",
    )  # fmt: skip
    parser.add_argument(
        "--transform", metavar="NAME", help="where the folder has several, such as 'Squeeze(size=224)'"
    )
    parser.add_argument(
        "--output-dir", type=user_path, required=True, metavar="DIR", help="folder of the index"
    )
    parser.add_argument(
        "--faiss", action="store_true", help="also a flat FAISS index (pip install 'hypvl[faiss]')"
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Read, check, write."""
    args = build_parser().parse_args(argv)

    from hypvl.cli.loading import load_chosen, pick_device
    from hypvl.embedding.identity import model_identity
    from hypvl.embedding.search_index import build_index, require_faiss, save_index
    from hypvl.embedding.store import EmbeddingStore

    if args.faiss:
        require_faiss()
    model, _ = load_chosen(args, device=pick_device(args.device))
    identity = model_identity(model)
    store = EmbeddingStore(args.embeddings, model=identity)
    ids, rows = store.embeddings_of(args.modality, transform=args.transform)
    index = build_index(
        model,
        rows,
        ids,
        side=args.side,
        modality=args.modality,
        other=args.other or ("text" if args.modality == "image" else "image"),
        identity=str(identity),
    )
    for path in save_index(index, args.output_dir, faiss=args.faiss):
        show(path)
    show(f"{len(ids)} vectors of {index.vectors.shape[1]} numbers, {index.about['geometry']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_main(main))
