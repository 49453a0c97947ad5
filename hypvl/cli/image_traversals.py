"""Walk from an image to the root of the embedding space and name the closest texts on the way."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypvl.cli.common import (
    CommandParser,
    add_table_arguments,
    run_main,
    show,
    table_options,
    user_path,
)
from hypvl.cli.encode_inputs import ROOTS
from hypvl.cli.numbers import whole
from hypvl.errors import ConfigError
from hypvl.io.files import write_output
from hypvl.io.json_text import json_bytes

EXAMPLES = """
examples:
  hypvl traverse --image-path assets/cat.png \\
      --checkpoint-path checkpoints/meru_vit_b.pth --train-config meru_vit_b
  a model of the demo, with the demo's own texts:
  hypvl traverse --image-path assets/shapes.png \\
      --checkpoint-path output/demo_meru/checkpoint_final.pth --text-pool datasets/demo/text_pool.json
"""
_ROOTS = {**ROOTS, "text pool": "the mean embedding of the text pool, because the checkpoint stores no root"}


def build_parser() -> argparse.ArgumentParser:
    """Flags of the command, as the field knows them from MERU."""
    parser = CommandParser(__doc__, examples=EXAMPLES)
    parser.add_argument("--image-path", type=user_path, required=True, help="the image")
    parser.add_model_arguments()
    parser.add_argument("--steps", type=whole(least=2), default=50, help="points from the image to the root")
    parser.add_argument(
        "--text-pool", type=user_path,
        help='a table with captions (CSV, TSV, JSONL), a JSON list of texts, or {"captions": [...], "nouns": [...], '
        '"adjectives": [...]} (default: the everyday texts that come with hypvl)',
    )  # fmt: skip
    add_table_arguments(parser, images=False)
    parser.add_argument(
        "--output-dir", type=user_path, default=Path("output/traversals"),
        help="folder of the JSON and the image",
    )  # fmt: skip
    parser.add_argument(
        "--entailment", choices=("auto", "always", "never"), default="auto",
        help="allow only texts whose entailment cone holds the point: auto = where the model is made for it",
    )  # fmt: skip
    return parser


def main(argv: Sequence[str]) -> int:
    """Parse, traverse, print and write."""
    args = build_parser().parse_args(argv)
    result = _traverse(args)
    image_file = args.output_dir / f"{args.image_path.stem}.png"
    json_file = args.output_dir / f"{args.image_path.stem}.json"
    if args.image_path.resolve() in (image_file.resolve(), json_file.resolve()):
        raise ConfigError(f"--output-dir: {args.output_dir} would overwrite the image; name another folder.")

    from hypvl.report.traversal import draw_traversal

    write_output(json_file, json_bytes(result, indent=2), flag="--output-dir")
    draw_traversal(json_file, image_file)
    _print(result, args.image_path)
    show(json_file, image_file)
    return 0


def _traverse(args: argparse.Namespace) -> dict[str, Any]:
    """What goes into the JSON file. The cheap inputs are read before the model."""
    from hypvl.datasets.images import read_image
    from hypvl.datasets.text_pool import load_text_pool

    pool = load_text_pool(args.text_pool, **table_options(args))
    pixels = read_image(args.image_path)

    import torch

    from hypvl.cli.loading import about_model, load_chosen, pick_device, stored_root
    from hypvl.data.transforms import ResizeCenterCrop
    from hypvl.embedding.encode import CachedEncoder
    from hypvl.embedding.protocol import evaluating
    from hypvl.evaluation.traversal import traverse

    model, content = load_chosen(args, device=pick_device(args.device))
    root = stored_root(content, args.checkpoint_path, embed_dim=model.embed_dim)
    texts = CachedEncoder(model).encode_texts([entry.prompt for entry in pool], label="text pool")
    with evaluating(model) as device:
        image = model.encode_image(ResizeCenterCrop.of(model)(pixels)[None].to(device))[0]  # (D,)
        traversal = traverse(
            model,
            image,
            texts.to(image),
            [entry.text for entry in pool],
            root=None if root is None else root.to(image),
            steps=args.steps,
            entailment=args.entailment,
        )
    return {
        "image": str(args.image_path),
        **about_model(args, content),
        "text_pool": "everyday" if args.text_pool is None else str(args.text_pool),
        "pool_size": len(pool),
        "device": str(torch.empty(0, device=device).device),
        **traversal.to_json(),
    }


def _print(result: dict[str, Any], image: Path) -> None:
    from hypvl.report.tables import print_table, rich_table

    first: dict[str, dict[str, Any]] = {}
    for step in result["steps"]:
        first.setdefault(step["text"], step)
    first[result["texts"][-1]] = result["steps"][-1]  # the root, where it is reached
    rows = [
        [
            text,
            f"{first[text]['radius']:.3f}",
            "" if first[text]["score"] is None else f"{first[text]['score']:.3f}",
        ]
        for text in result["texts"]
    ]
    table = rich_table(
        rows, header=("text", "radius", "score"), title=f"From {image.name} to [ROOT]", text_columns=1
    )
    print_table(table)
    show(f"[ROOT] is {_ROOTS[result['root']]}.")
    if len(result["texts"]) == 1:
        show(_why_only_root(result))


def _why_only_root(result: dict[str, Any]) -> str:
    """What to say, and to try, where no text was named."""
    if not result["texts_in_reach"]:
        return (
            f"No text is named: the entailment cone of none of the {result['pool_size']} texts holds a point of the "
            "way, as with a model that was trained briefly or without an entailment loss. Try --entailment never, "
            "which ranks all texts, or a --text-pool with more general ones."
        )
    return (
        "No text is named: the root is closer than any text all the way, as with a model that was trained briefly "
        "or whose texts lie far out. Try a later checkpoint, or a --text-pool like the captions of its training."
    )


if __name__ == "__main__":
    raise SystemExit(run_main(main))
