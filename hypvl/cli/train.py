"""Train a model from a config."""

import argparse
import os
import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from hypvl.cli.common import config_parser, load_config, run_main, user_path
from hypvl.cli.numbers import whole
from hypvl.errors import ConfigError
from hypvl.io.processes import save_requests_held

EXAMPLES = """examples:
  one CPU process:  hypvl train --config meru_demo --num-gpus 0 --output-dir output/demo
  eight GPUs:       hypvl train --config meru_vit_b --num-gpus 8 --output-dir output/meru_b
  overrides:        ... model.visual.arch=vit_small_mocov3_patch16_224 train.total_batch_size=4096
  evaluate too:     ... train.evaluate.every=1000 train.evaluate.config=eval_zero_shot_classification
  resume:           hypvl train --resume --num-gpus 8 --output-dir output/meru_b
  torchrun, CPU:    torchrun --nproc-per-node 2 -m hypvl train --config meru_demo --num-gpus 0
"""
REQUIRED = ("dataset", "model", "optim", "train")


def build_parser() -> argparse.ArgumentParser:
    """Flags of the command, as the field knows them from MERU."""
    parser = config_parser(__doc__, examples=EXAMPLES, config_required=False)
    parser.add_argument("--output-dir", type=user_path, default=Path("output"), help="folder of the run")
    parser.add_argument(
        "--resume", action="store_true",
        help="continue from the last checkpoint in --output-dir; without --config with the config saved there",
    )  # fmt: skip
    parser.add_argument("--checkpoint-period", type=whole(least=1), help="steps between checkpoints")
    parser.add_argument("--log-period", type=whole(least=1), help="steps between log lines")
    parser.add_argument(
        "--num-gpus",
        type=whole(least=0),
        help="GPUs on this machine (default: all, at least one); 0 = one CPU process",
    )
    parser.add_argument("--num-machines", type=whole(least=1), default=1, help="machines that take part")
    parser.add_argument(
        "--machine-rank", type=whole(least=0), default=0, metavar="R", help="which of them this one is"
    )
    parser.add_argument("--dist-url", metavar="URL", help="tcp://host:port of machine 0")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, compose, launch."""
    # Before torch comes in: threads that wait by spinning starve the data workers on a machine of few cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    args = build_parser().parse_args(argv)
    with save_requests_held():  # else they end a program that does not train yet, or no longer
        return _train(args)


def _train(args: argparse.Namespace) -> int:
    if args.dist_url is not None and not re.fullmatch(r"tcp://.+:\d+", args.dist_url):
        raise ConfigError(
            f"--dist-url: got {args.dist_url!r}; expected tcp://host:port of machine 0, e.g. tcp://10.0.0.1:29500."
        )
    cfg = load_config(_config(args), args.overrides, required=REQUIRED, prefix="train_")
    _check_device(args.num_gpus)

    from hypvl.cli.suites import TrainingSuite
    from hypvl.launch import launch
    from hypvl.training.config import TrainConfig
    from hypvl.training.run import RunOptions, run_training

    options = RunOptions(
        output_dir=args.output_dir,
        resume=args.resume,
        checkpoint_period=args.checkpoint_period,
        log_period=args.log_period,
        make_suite=TrainingSuite,
    )
    launch(
        run_training,
        cfg,
        options,
        num_gpus=args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        timeout=timedelta(seconds=TrainConfig.read(cfg.train).timeout_s),
    )
    return 0


def _config(args: argparse.Namespace) -> str | Path:
    """The config of ``--config``; without it, on ``--resume``, the one in the run's folder."""
    if args.config is not None:
        return str(args.config)
    own: Path = args.output_dir / "config.yaml"
    if args.resume and own.is_file():
        return own
    if args.resume:
        raise ConfigError(
            f"--config: missing, and {args.output_dir} has no config.yaml of a run; name the config."
        )
    raise ConfigError(
        "--config: missing; name a config, or add --resume to continue the run in --output-dir with its own config."
    )


def _check_device(num_gpus: int | None) -> None:
    """Refuse to train on the CPU only because no GPU is found; ``--num-gpus 0`` asks for it."""
    import torch

    if num_gpus is None and not torch.cuda.is_available():
        raise ConfigError(
            "--num-gpus: missing, and no usable GPU is found; --num-gpus 0 trains on the CPU, which is slow "
            "for anything but the demo recipes (hypvl doctor lists the GPUs)."
        )


if __name__ == "__main__":
    raise SystemExit(run_main(main))
