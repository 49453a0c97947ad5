"""Measure a model: python scripts/evaluate.py --config configs/eval_zero_shot_retrieval.py --checkpoint-path X.pth"""

import sys

from hypvl.cli.evaluate import run

if __name__ == "__main__":
    sys.exit(run())
