"""Make hard negatives: false captions that differ from the true one in a word or a relation."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hypvl.checks import count_of
from hypvl.cli.common import (
    CommandParser,
    add_table_arguments,
    run_main,
    show,
    table_options,
    user_path,
    user_text,
)
from hypvl.cli.engine import add_engine_arguments, engine_of, report_failed
from hypvl.cli.numbers import whole
from hypvl.errors import ConfigError
from hypvl.io.progress import terminal_bar

if TYPE_CHECKING:
    from hypvl.negatives.backends.base import BackendArguments
    from hypvl.negatives.entries import SourceArguments
    from hypvl.negatives.generate import Settings
    from hypvl.negatives.run import Result
    from hypvl.units.engines import Engine

EXAMPLES = """
examples:
  hypvl hard-negatives --download datasets/coco --output datasets/coco/negatives_train2014.jsonl
  hypvl hard-negatives --captions captions_train2014.json --image-prefix train2014/ \\
      --output negatives.jsonl --num-workers 8
  hypvl hard-negatives --captions pairs.csv --caption-column text --types relation object \\
      --output negatives.jsonl
  one file for each shard, on many machines that share the folder:
  hypvl hard-negatives --captions 'cc3m-{0000..0331}.tar' --output-dir negatives --engine slurm-array
The same command continues an interrupted run. Formats, backends and fields: hypvl docs hard_negatives
"""
TYPES = ("relation", "attribute", "object", "action")


def main(argv: Sequence[str]) -> int:
    """Parse the flags, make the negatives, print how many of each type there are."""
    args = build_parser().parse_args(argv)
    _check(args)
    engine = engine_of(args)

    from hypvl.negatives import generate
    from hypvl.negatives.entries import SourceArguments
    from hypvl.negatives.run import make_hard_negatives

    backend = _backend(args)
    backend.identity()  # a missing package is an error before anything is downloaded
    places, prefix = args.captions, args.image_prefix
    if args.download is not None:
        from hypvl.negatives.download import fetch_coco_captions

        places = [str(fetch_coco_captions(args.download, split=args.split, url=args.url, sha256=args.sha256))]
        prefix = f"{args.split}2014/" if prefix is None else prefix
    source = SourceArguments(
        places=tuple(places),
        format=args.format,
        **table_options(args),
        image_prefix=prefix or "",
        limit=args.limit,
    )
    settings = generate.Settings(
        seed=args.seed,
        types=tuple(kind for kind in generate.TYPES if kind in args.types),
        relation=args.relation,
    )
    if args.output_dir is not None:
        return _make_shards(args, source, backend, settings, engine)
    with terminal_bar("captions", shown=not args.quiet) as move_bar:
        result = make_hard_negatives(
            source,
            args.output,
            backend=backend,
            settings=settings,
            num_workers=args.workers or 0,
            part_size=args.part_size,
            overwrite=args.overwrite,
            progress=move_bar,
        )
    if not args.quiet:
        _print_summary(args.output, result)
    return 0


def build_parser() -> CommandParser:
    """Flags of the command."""
    from hypvl.negatives.download import COCO_URL

    parser = CommandParser(__doc__, examples=EXAMPLES)
    read = parser.add_argument_group("captions")
    read.add_argument(
        "--captions", type=user_text, nargs="+", default=[],
        help="CSV, TSV, JSON Lines, COCO captions JSON, or TAR shards (globs, {0000..0099}.tar, URLs)",
    )  # fmt: skip
    read.add_argument(
        "--download", type=user_path, metavar="FOLDER",
        help="fetch the captions of COCO 2014 into this folder",
    )  # fmt: skip
    read.add_argument("--split", choices=("train", "val"), default="train", help="of COCO, with --download")
    read.add_argument("--url", default=COCO_URL, help="of COCO's annotations, with --download")
    read.add_argument("--sha256", help="what the archive of --download must have; not looked at by default")
    read.add_argument(
        "--format", choices=("table", "jsonl", "json", "tar"), help="by default from the suffix"
    )
    add_table_arguments(read)
    read.add_argument("--image-prefix", help="put before each image, e.g. train2014/")
    read.add_argument("--limit", type=whole(least=1), help="read only so many captions")

    make = parser.add_argument_group("negatives")
    where = make.add_mutually_exclusive_group(required=True)
    where.add_argument("--output", type=user_path, help="JSON Lines file to make, of all captions")
    where.add_argument(
        "--output-dir",
        type=user_path,
        metavar="DIR",
        help="folder of one JSON Lines file for each caption file",
    )
    make.add_argument("--types", nargs="+", choices=TYPES, default=list(TYPES), help="which negatives")
    make.add_argument(
        "--relation", choices=("either", "swap", "opposite"), default="either",
        help="swap two nouns, turn a relation into its opposite, or either of them",
    )  # fmt: skip
    make.add_argument("--seed", type=whole(least=0), default=0, help="of every choice")
    make.add_argument(
        "--part-size", type=whole(least=1), default=1000, help="captions made and written together"
    )
    make.add_argument("--overwrite", action="store_true", help="replace an output of other settings")
    make.add_argument("--quiet", action="store_true", help="no progress bar and no summary")

    words = parser.add_argument_group("where words come from")
    words.add_argument(
        "--backend", choices=("builtin", "lemminflect", "masked-lm"), default="builtin",
        help="builtin: word lists of hypvl; lemminflect: textblob + lemminflect (pip install 'hypvl[negatives]'); "
        "masked-lm: spaCy + a Hugging Face model ('hypvl[negatives-lm]')",
    )  # fmt: skip
    words.add_argument(
        "--mlm-model", type=user_text, default="distilroberta-base", help="masked-lm: name or folder"
    )
    words.add_argument(
        "--tagger", choices=("spacy", "builtin", "lemminflect"), default="spacy",
        help="masked-lm: what finds nouns, adjectives and verbs",
    )  # fmt: skip
    words.add_argument(
        "--spacy-model", type=user_text, default="en_core_web_sm", help="masked-lm: name or folder"
    )
    words.add_argument(
        "--guess-skip", type=whole(least=0), default=3, help="masked-lm: best guesses left out (may be true)"
    )
    words.add_argument("--guess-top", type=whole(least=1), default=50, help="masked-lm: guesses looked at")
    words.add_argument("--batch-size", type=whole(least=1), default=64, help="masked-lm: sentences at once")
    words.add_argument("--device", default="cpu", help="masked-lm: cpu, cuda, cuda:1 ...")
    words.add_argument(
        "--accept-unknown", action="store_true",
        help="lemminflect, masked-lm: also use adjectives and verbs of which it is not known that they contradict "
        "the caption",
    )  # fmt: skip
    add_engine_arguments(parser, aliases=["--num-workers"])
    return parser


def _check(args: argparse.Namespace) -> None:
    if bool(args.captions) == (args.download is not None):
        raise ConfigError("give either --captions PATH or --download FOLDER, to say where the captions are.")
    if args.output is not None and args.engine != "local":
        raise ConfigError(
            f"--engine {args.engine}: needs --output-dir, a file for each caption file, not --output."
        )
    if args.output_dir is not None and args.overwrite:
        raise ConfigError("--overwrite: is of --output; name another --output-dir for other settings.")
    if args.guess_top <= args.guess_skip:
        raise ConfigError(
            f"--guess-top {args.guess_top}: expected more than --guess-skip {args.guess_skip}, or no guess is left."
        )


def _backend(args: argparse.Namespace) -> "BackendArguments":
    from hypvl.negatives.backends.base import BuiltinArguments
    from hypvl.negatives.backends.inflecting import LemminflectArguments
    from hypvl.negatives.backends.masked_lm import MaskedLMArguments

    if args.backend == "builtin":
        return BuiltinArguments()
    if args.backend == "lemminflect":
        return LemminflectArguments(accept_unknown=args.accept_unknown)
    from hypvl.models.hub import usable_device

    usable_device("--device", args.device)
    return MaskedLMArguments(
        model=args.mlm_model,
        tagger=args.tagger,
        spacy_model=args.spacy_model,
        skip=args.guess_skip,
        top=args.guess_top,
        batch_size=args.batch_size,
        device=args.device,
        accept_unknown=args.accept_unknown,
    )


def _make_shards(
    args: argparse.Namespace,
    source: "SourceArguments",
    backend: "BackendArguments",
    settings: "Settings",
    engine: "Engine",
) -> int:
    """``--output-dir``: a file for each caption file; 1 if one failed, after the others are done."""
    from hypvl.negatives.per_shard import ShardNegatives, negatives_of_shards
    from hypvl.negatives.run import Result
    from hypvl.negatives.writer import Counts

    make = ShardNegatives(backend, settings, args.part_size)
    total, made, seen, failed = Counts(), False, 0, []
    with terminal_bar("captions", shown=not args.quiet) as move_bar:
        results = negatives_of_shards(
            source, args.output_dir, make, engine=engine, claim_minutes=args.claim_minutes, on_tick=move_bar
        )  # fmt: skip
        for result in results:
            seen += 1
            if result.status == "failed":
                failed.append(result)
                continue
            made = made or result.status == "made"
            total.add_counts(Counts.from_json(result.counts))
    if not args.quiet and total.captions:
        _print_summary(args.output_dir, Result(total, written=made))
    return report_failed(failed, seen, what="caption files")


def _print_summary(output: Path, result: "Result") -> None:
    from hypvl.report.tables import print_table, rich_table

    counts = result.counts
    rows = []
    for kind in TYPES:
        refused = counts.refused[kind]
        why = ", ".join(f"{count} {reason}" for reason, count in refused.most_common())
        share = f"{100 * counts.made[kind] / counts.captions:.1f} %"
        invalid = f"{sum(refused.values())}: {why}" if why else "0"
        rows.append((kind, str(counts.made[kind]), share, invalid))
    print_table(rich_table(rows, header=("type", "valid", "share", "invalid, and why"), text_columns=1))
    for reason, count in counts.skipped.items():
        show(f"skipped: {count_of(count, 'entry', 'entries')} ({reason})")
    state = "written" if result.written else "up to date"
    made = count_of(sum(counts.made.values()), "negative")
    show(f"{output}: {count_of(counts.captions, 'caption')}, {made} ({state})")


if __name__ == "__main__":
    raise SystemExit(run_main(main))
