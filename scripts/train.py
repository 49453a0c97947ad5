"""Train a model: python scripts/train.py --config configs/train_meru_demo.py --num-gpus 0 --output-dir output/demo"""

import sys

from hypvl.cli.train import run

if __name__ == "__main__":
    sys.exit(run())
