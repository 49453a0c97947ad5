"""Measure a model: python scripts/evaluate.py --config configs/eval_zero_shot_retrieval.py --checkpoint-path X.pth"""

from hypvl.cli.common import run_main
from hypvl.cli.evaluate import main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
