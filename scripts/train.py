"""Train a model: python scripts/train.py --config configs/train_meru_demo.py --num-gpus 0 --output-dir output/demo"""

from hypvl.cli.common import run_main
from hypvl.cli.train import main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
