"""Compare the distances to the root of several groups of items."""

from collections.abc import Sequence

from hypvl.cli.common import CommandParser, run_main, user_path
from hypvl.cli.encode_inputs import INPUT_HELP, LoadedModel, add_loaded_model_arguments, present
from hypvl.cli.numbers import whole
from hypvl.errors import ConfigError

EXAMPLES = """
examples:
  hypvl radius-histograms --inputs photos/whole photos/crops --checkpoint-path checkpoints/meru_vit_b.pth \\
      --train-config meru_vit_b
  images against their captions:
  ... --inputs photos captions.txt --names images captions
"""


def build_parser() -> CommandParser:
    """Flags of the command."""
    parser = CommandParser(__doc__, examples=EXAMPLES)
    parser.add_argument(
        "--inputs", type=user_path, nargs="+", required=True, help=f"for each group {INPUT_HELP}"
    )
    parser.add_argument("--names", nargs="+", metavar="NAME", help="of the groups (default: the paths')")
    parser.add_argument("--bins", type=whole(least=1), default=40, help="of the histogram")
    add_loaded_model_arguments(parser, output_dir="output/radius_histograms")
    return parser


def main(argv: Sequence[str]) -> int:
    """Encode, measure, write, show."""
    args = build_parser().parse_args(argv)
    names = [str(path) for path in args.inputs] if args.names is None else args.names
    if len(names) != len(args.inputs) or len(set(names)) != len(names):
        raise ConfigError(
            f"--names: got {', '.join(names)} for {len(args.inputs)} inputs; expected a different one for each."
        )

    import torch

    from hypvl.embedding.protocol import check_embeddings
    from hypvl.evaluation.ordering import radius_histograms
    from hypvl.evaluation.traversal import radius
    from hypvl.report.ordering import draw_histograms

    loaded = LoadedModel.of(args)
    groups = {name: loaded.items(path) for name, path in zip(names, args.inputs, strict=True)}
    geometry = loaded.model.cpu().geometry
    with torch.inference_mode():
        together = torch.cat([items.embeddings for items in groups.values()])
        check_embeddings(together)
        root, source = loaded.root_of(together)
        radii = {name: radius(geometry, items.embeddings, root=root) for name, items in groups.items()}
        histograms = radius_histograms(radii, bins=args.bins)
    for name, items in groups.items():
        histograms["groups"][name] |= {"modality": items.modality, "unreadable": items.unreadable}
    result = {"inputs": [str(path) for path in args.inputs], "root": source, **loaded.about, **histograms}
    present(
        result,
        args.output_dir / "radius_histograms.json",
        draw=draw_histograms,
        rows=[
            [name, str(group["count"]), f"{group['mean']:.4f}", f"{group['std']:.4f}"]
            for name, group in histograms["groups"].items()
        ],
        header=("group", "items", "mean radius", "standard deviation"),
        title="Distance to the root",
        notes=[
            f"{pair['first']} nearer the root than {pair['second']}: {pair['share']:.1f} % of pairs (no order: 50 %)"
            for pair in histograms["nearer"]
        ],
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(run_main(main))
