"""Walk from one image to another and name the closest images, or texts, of a pool on the way."""

from collections.abc import Sequence

from hypvl.cli.common import CommandParser, run_main, user_path
from hypvl.cli.encode_inputs import INPUT_HELP, LoadedModel, add_loaded_model_arguments, free_of, present
from hypvl.cli.numbers import whole
from hypvl.errors import ConfigError

EXAMPLES = """
examples:
  hypvl interpolate --image-path assets/cat.png --target-image-path assets/shapes.png --pool photos \\
      --checkpoint-path checkpoints/atmg_vit_b.pth --train-config atmg_vit_b
  the texts on the way:
  ... --pool captions.txt --steps 20
"""


def build_parser() -> CommandParser:
    """Flags of the command."""
    parser = CommandParser(__doc__, examples=EXAMPLES)
    parser.add_argument("--image-path", type=user_path, required=True, help="where it begins")
    parser.add_argument("--target-image-path", type=user_path, required=True, help="where it ends")
    parser.add_argument("--pool", type=user_path, required=True, help=INPUT_HELP)
    parser.add_argument("--steps", type=whole(least=2), default=10, help="points, both images included")
    parser.add_argument(
        "--nearest", type=whole(least=1), default=3, metavar="K", help="items of the pool for each point"
    )
    parser.add_argument(
        "--way", choices=("geodesic", "tangent"), default="geodesic",
        help="the shortest way, or the straight one in the tangent space at the root",
    )  # fmt: skip
    add_loaded_model_arguments(parser, output_dir="output/interpolations")
    return parser


def main(argv: Sequence[str]) -> int:
    """Encode, walk, write, show."""
    args = build_parser().parse_args(argv)
    if not args.pool.exists():
        raise ConfigError(f"--pool: {args.pool} is not there; expected {INPUT_HELP}.")
    name = f"{args.image_path.stem}_to_{args.target_image_path.stem}"
    json_file = args.output_dir / f"{name}.json"
    free_of(json_file.with_suffix(".png"), args.image_path, args.target_image_path)

    import torch

    from hypvl.evaluation.ordering import interpolate_between
    from hypvl.report.ordering import draw_interpolation

    loaded = LoadedModel.of(args)
    first, second = loaded.image(args.image_path), loaded.image(args.target_image_path)
    pool = loaded.items(args.pool)
    model = loaded.model.cpu()
    with torch.inference_mode():
        root, source = loaded.root_of(pool.embeddings)
        points = interpolate_between(
            model,
            first,
            second,
            pool.embeddings,
            pool.numbers(),
            pool_modality=pool.modality,
            steps=args.steps,
            k=args.nearest,
            way=args.way,
            root=root,
        )
    steps = []
    for point in points:
        at = [int(number) for number in point.names]
        paths = {} if pool.paths is None else {"paths": [str(pool.paths[i]) for i in at]}
        steps.append({**point.to_json(), "names": [pool.names[i] for i in at], **paths})
    result = {
        "image": str(args.image_path),
        "target": str(args.target_image_path),
        "pool": str(args.pool),
        "pool_size": len(pool.names),
        "modality": pool.modality,
        "unreadable": pool.unreadable,
        "way": args.way,
        "root": source,
        **loaded.about,
        "steps": steps,
    }
    present(
        result,
        json_file,
        draw=draw_interpolation,
        rows=[[step["names"][0], f"{step['weight']:.2f}", f"{step['radius']:.3f}"] for step in steps],
        header=("closest", "weight", "radius"),
        title=f"From {args.image_path.name} to {args.target_image_path.name}",
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(run_main(main))
