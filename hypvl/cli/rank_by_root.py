"""Rank images or texts by their distance to the root, the most general first, or along a ray."""

from collections.abc import Sequence

from hypvl.cli.common import CommandParser, run_main, user_path
from hypvl.cli.encode_inputs import INPUT_HELP, LoadedModel, add_loaded_model_arguments, free_of, present
from hypvl.cli.numbers import real
from hypvl.errors import ConfigError, DataError

EXAMPLES = """
examples:
  hypvl rank-by-root --input photos --checkpoint-path checkpoints/atmg_vit_b.pth --train-config atmg_vit_b
  a list of texts, along the ray from the root through a text or an image, no farther than 60 degrees from it:
  ... --input captions.txt --through-text "a dog"
  ... --input photos --through-image photos/dog.jpg --max-angle 60
"""
_MOST_ROWS = 20


def build_parser() -> CommandParser:
    """Flags of the command."""
    parser = CommandParser(__doc__, examples=EXAMPLES)
    parser.add_argument("--input", type=user_path, required=True, help=INPUT_HELP)
    ray = parser.add_mutually_exclusive_group()
    ray.add_argument("--through-image", type=user_path, help="rank along the ray through this image")
    ray.add_argument("--through-text", metavar="TEXT", help="rank along the ray through this text")
    parser.add_argument(
        "--max-angle", type=real(least=0, most=180), default=180.0, metavar="DEGREES",
        help="leave out what lies farther from the ray",
    )  # fmt: skip
    add_loaded_model_arguments(parser, output_dir="output/rankings")
    return parser


def main(argv: Sequence[str]) -> int:
    """Encode, rank, write, show."""
    args = build_parser().parse_args(argv)
    if not args.input.exists():
        raise ConfigError(f"--input: {args.input} is not there; expected {INPUT_HELP}.")
    name = args.input.resolve().stem
    json_file = args.output_dir / f"{name}.json"
    free_of(json_file, args.input)

    import torch

    from hypvl.evaluation.ordering import rank_along_ray, rank_by_root
    from hypvl.report.ordering import draw_ranking, evenly_spaced

    loaded = LoadedModel.of(args)
    items = loaded.items(args.input)
    through = None
    if args.through_image is not None:
        through = loaded.image(args.through_image)
    elif args.through_text is not None:
        through = loaded.texts([args.through_text], label="ray").embeddings[0]
    model = loaded.model.cpu()
    with torch.inference_mode():
        root, source = loaded.root_of(items.embeddings)
        numbers = items.numbers()
        if through is None:
            ranked = rank_by_root(model.geometry, items.embeddings, numbers, root=root)
        else:
            ranked = rank_along_ray(
                model.geometry, items.embeddings, numbers, through, root=root, max_angle=args.max_angle
            )
    if not ranked:
        raise DataError(
            f"--max-angle: nothing of {args.input} lies within {args.max_angle:g} degrees; allow more."
        )
    order = "radius" if through is None else "along"
    entries = []
    for placed in ranked:
        at = int(placed.name)
        path = {} if items.paths is None else {"path": str(items.paths[at])}
        entries.append({**placed.to_json(), "name": items.names[at], **path})
    result = {
        "input": str(args.input),
        "modality": items.modality,
        "order": order,
        "through": None if through is None else str(args.through_image or args.through_text),
        "root": source,
        "unreadable": items.unreadable,
        **loaded.about,
        "items": entries,
    }
    present(
        result,
        json_file,
        draw=draw_ranking,
        rows=[
            [entries[i]["name"], f"{entries[i][order]:.4f}", str(i + 1)]
            for i in evenly_spaced(len(entries), _MOST_ROWS)
        ],
        header=("item", order, "rank"),
        title=f"{len(entries)} {items.modality}s from the root outwards",
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(run_main(main))
