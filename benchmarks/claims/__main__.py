"""Claims of the papers in miniature, on the demo data: python -m benchmarks.claims [--seeds 0,1,2] [--only clip,meru]

Each run is `scripts/train.py` on a demo recipe, cut to the same number of steps for all, and `scripts/evaluate.py`
after it. A finished run is not done again, an interrupted one goes on; `--report` only reads what is there. A claim
holds when its mean difference over the seeds exceeds twice their standard deviation (with one seed there is none, and
the claim is only "seen"). Prints two Markdown tables, of the claims and of the runs, and one JSON line.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.claims.papers import compared, rows, table
from benchmarks.claims.runs import ROOT, RUNS, call, train_and_evaluate
from benchmarks.common import report


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default="0,1,2", help="seeds, with commas (default: 0,1,2)")
    parser.add_argument("--quick", action="store_true", help="the first seed only")
    parser.add_argument("--only", default=",".join(RUNS), help=f"runs, with commas, of {', '.join(RUNS)}")
    parser.add_argument("--steps", type=int, default=600, help="optimizer steps of each run (default: 600)")
    parser.add_argument("--output-dir", type=Path, default=ROOT / "output" / "claims", metavar="DIR")
    parser.add_argument("--report", action="store_true", help="train nothing, read what is there")
    args = parser.parse_args(argv)
    seeds = [int(seed) for seed in args.seeds.split(",")][: 1 if args.quick else None]
    chosen = args.only.split(",")
    if unknown := set(chosen) - set(RUNS):
        parser.error(f"--only: {', '.join(sorted(unknown))} unknown; expected some of {', '.join(RUNS)}")
    folder = args.output_dir / f"steps_{args.steps}"
    started = time.monotonic()
    if not args.report:
        if not (ROOT / "datasets" / "demo" / "stamp.json").is_file():
            call(folder, ["scripts/make_demo_data.py", "--output-dir", "datasets/demo"])
        for seed in seeds:
            for run in chosen:
                train_and_evaluate(run, seed, folder, steps=args.steps)
                print(f"{time.monotonic() - started:7.0f} s  {run}, seed {seed}", file=sys.stderr, flush=True)
    found = rows(folder, seeds)
    print(table(found))
    print(compared(folder, seeds))
    report("claims", {"steps": args.steps, "claims": found, "seconds": time.monotonic() - started})


if __name__ == "__main__":
    main()
