"""Write the features of a teacher for a whole training set, once, so that training reads them instead of encoding."""

import sys
from collections.abc import Sequence

from hypvl.cli.common import CommandParser, config_parser, load_config, run_main, show, user_path
from hypvl.cli.numbers import whole
from hypvl.errors import ConfigError

EXAMPLES = """examples:
  hypvl cache-teacher --config distill_teacher_demo --teacher teacher \\
      --output-dir output/teacher_features
  on eight GPUs, each its share; started again, it goes on:
  torchrun --nproc-per-node 8 -m hypvl cache-teacher ...
  then train with the features:
  hypvl train --config distill_teacher_demo ... \\
      '~train.teachers.teacher' \\
      '+train.teachers.teacher={_target_: hypvl.training.teacher_cache.CachedTeacher, folder: output/teacher_features}'
"""


def build_parser() -> CommandParser:
    """Flags of the command."""
    parser = config_parser(__doc__, examples=EXAMPLES)
    parser.add_argument(
        "--teacher", default="teacher", metavar="NAME", help="of train.teachers in the config"
    )
    parser.add_argument(
        "--output-dir", type=user_path, required=True, metavar="DIR", help="folder of the features"
    )
    parser.add_argument(
        "--batch-size", type=whole(least=1), default=256, help="rows encoded at once, of all processes"
    )
    parser.add_argument(
        "--num-workers", type=whole(least=0), default=4, help="processes that read data, for each process"
    )
    parser.add_argument(
        "--num-gpus", type=whole(least=0), help="0 = the CPU; with torchrun, a GPU for each process"
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Encode what is not there yet."""
    args = build_parser().parse_args(argv)
    cfg = load_config(args.config, args.overrides, required=("dataset", "train"), prefix="train_")

    from hypvl.launch import launch
    from hypvl.training.teacher_cache import cache_teacher

    if args.teacher not in (cfg.train.get("teachers") or {}):
        names = ", ".join(map(str, cfg.train.get("teachers") or {})) or "none"
        raise ConfigError(f"--teacher: got {args.teacher!r}; expected one of train.teachers: {names}.")
    launch(
        cache_teacher,
        cfg,
        args.teacher,
        args.output_dir,
        args.batch_size,
        args.num_workers,
        num_gpus=args.num_gpus,
    )
    show(f"{args.output_dir}: the features of {args.teacher!r} are complete", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
