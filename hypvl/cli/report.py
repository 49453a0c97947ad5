"""Write one HTML page about a run: curves, results, geometry, the embeddings in a disk, and queries that fail."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypvl.cli.captioned_data import add_data_arguments
from hypvl.cli.common import CommandParser, run_main, show, table_options, user_path
from hypvl.cli.numbers import whole
from hypvl.errors import ConfigError, DataError
from hypvl.io.files import write_output
from hypvl.io.json_text import json_bytes
from hypvl.report.html.run_files import DATA_FILE

if TYPE_CHECKING:
    from hypvl.datasets.protocol import RetrievalSet
    from hypvl.datasets.text_pool import PoolText

EXAMPLES = """
examples:
  hypvl report --run output/demo_meru
  hypvl report --run output/demo_meru --compare output/demo_clip --output report.html
  on images and captions of your own:
  hypvl report --run output/meru_vit_b --data pairs.csv --images-root photos
  from the files of a run alone, without running the model:
  hypvl report --run output/meru_vit_b --no-model
"""
# Evaluators whose data sets are images with captions.
_ON_CAPTIONS = tuple(
    f"hypvl.evaluation.{name}." for name in ("geometry_audit", "modality_gap", "radii", "retrieval")
)


def build_parser() -> CommandParser:
    """Flags of the command."""
    parser = CommandParser(__doc__, examples=EXAMPLES)
    parser.add_argument(
        "--run", type=user_path, required=True, metavar="DIR", help="folder of a training run"
    )
    parser.add_argument(
        "--compare", type=user_path, nargs="+", default=[], metavar="DIR",
        help="folders of other runs, whose curves and results stand beside",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=user_path, help="the page (default: report.html in the run's folder)"
    )
    add_data_arguments(parser, default=None, default_is="the set with captions of the run's results")
    parser.add_argument(
        "--no-model", action="store_true",
        help=f"run no model: show what {DATA_FILE} in the run's folder holds, if it is there",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint-path", type=user_path, metavar="PATH", help="checkpoint (default: the run's last one)"
    )
    parser.add_argument(
        "--train-config", metavar="NAME", help="config of the model (default: the checkpoint's own)"
    )
    parser.add_argument(
        "--limit", type=whole(least=3), default=500, help="measure at most N pairs, evenly spread"
    )
    parser.add_argument("--points", type=whole(least=2), default=150, help="draw at most N pairs")
    parser.add_argument(
        "--projection", choices=("tangent-pca", "horopca"), default="tangent-pca",
        help="how the plane of the disk is found",
    )  # fmt: skip
    parser.add_argument(
        "--text-pool", type=user_path,
        help="texts of the traversals, as in hypvl image-traversals (default: text_pool.json beside the data set, else "
        "everyday texts)",
    )  # fmt: skip
    parser.add_argument(
        "--traversals", type=whole(least=0), default=3, help="images from which to walk to the root"
    )
    parser.add_encoding_arguments()
    parser.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
    return parser


def main(argv: Sequence[str]) -> int:
    """Measure, write the data, draw the page."""
    args = build_parser().parse_args(argv)
    for folder in (args.run, *args.compare):
        if not folder.is_dir():
            flag = "--run" if folder == args.run else "--compare"
            raise DataError(f"{flag}: {folder} is not a folder; expected one of a training run.")
    output = args.run / "report.html" if args.output is None else args.output

    from hypvl.report.html.page import write_page
    from hypvl.report.html.run_files import check_run, read_run

    for folder in (args.run, *args.compare):
        check_run(folder)
    if not args.no_model:
        data_file = args.run / DATA_FILE
        write_output(data_file, json_bytes(_measure(args)), flag="--run")
        show(data_file)
    page = write_page(read_run(args.run), [read_run(folder) for folder in args.compare], output)
    show(*page.answers, output)
    return 0


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    """What goes into the data file. The cheap inputs are read before the model."""
    from hypvl.cli.encode_inputs import show_unreadable
    from hypvl.cli.loading import encoding_of, load_trained, pick_device, stored_root
    from hypvl.embedding.encode import CachedEncoder
    from hypvl.evaluation.report_data import report_data
    from hypvl.models.checkpoint_io import checkpoint_file
    from hypvl.training.provenance import code_version

    dataset, name, pool = _inputs(args)
    path = checkpoint_file(args.run) if args.checkpoint_path is None else args.checkpoint_path
    model, content = load_trained(path, args.train_config, device=pick_device(args.device))
    encoder = CachedEncoder(model, encoding=encoding_of(args))
    try:
        data = report_data(
            encoder,
            dataset,
            pool=pool,
            root=stored_root(content, path, embed_dim=model.embed_dim),
            limit=args.limit,
            points=args.points,
            traversals=args.traversals,
            projection=args.projection,
        )
    except ValueError as error:
        if not str(error).startswith("method:"):
            raise
        raise ConfigError(f"--projection{str(error).removeprefix('method')}") from error
    show_unreadable(encoder)
    about = {"checkpoint": str(path), "iteration": content.get("iteration"), "data": name, **code_version()}
    return {"about": about, **data}


def _inputs(args: argparse.Namespace) -> "tuple[RetrievalSet, str, list[PoolText]]":
    """The images and captions, what they are called, and the texts of the traversals."""
    from hypvl.cli.captioned_data import captioned_set
    from hypvl.datasets.text_pool import load_text_pool

    beside: Path | None = None
    if args.data is not None:
        dataset, name = captioned_set(args), args.data
        root = "./datasets/demo" if args.data == "demo" else args.data.partition(":")[2]
        beside = Path(root) / "text_pool.json" if root else None
    else:
        dataset, name, root = _own_set(args.run)
        beside = None if root is None else Path(root) / "text_pool.json"
    pool = args.text_pool
    if pool is None and beside is not None and beside.is_file():
        pool = beside
    options = {key: value for key, value in table_options(args).items() if key != "image_column"}
    return dataset, name, load_text_pool(pool, **(options if args.text_pool is not None else {}))


def _own_set(run: Path) -> "tuple[RetrievalSet, str, str | None]":
    """The first data set with captions in the settings of a run's results, its evaluation, and the folder it is in.

    Only data sets on the allow-list are built.
    """
    from hypvl.checks import missing_members
    from hypvl.config import LazyConfig, instantiate
    from hypvl.datasets.protocol import RetrievalSet
    from hypvl.report.html.run_files import results_of

    hint = "name images with captions: --data pairs.csv (or demo, coco, flickr30k), or --no-model for a page without"
    for name, entry in results_of(run).items():
        settings = entry.get("settings")
        if not isinstance(settings, dict) or not str(settings.get("_target_")).startswith(_ON_CAPTIONS):
            continue
        try:
            node = settings.get("dataset")
            config = LazyConfig.from_dict({"evaluate": {"dataset": node}}, source=f"{run} ({name})")
            dataset = instantiate(config.evaluate.dataset)
        except (ConfigError, DataError):
            continue
        if isinstance(node, dict) and not missing_members(dataset, RetrievalSet):
            root = node.get("root")
            return dataset, name, root if isinstance(root, str) else None
    raise DataError(f"--run: {run} has no results on images with captions that can be read here; {hint}.")


if __name__ == "__main__":
    raise SystemExit(run_main(main))
