"""Convert a checkpoint: python scripts/convert.py output/run --to output/run_weights"""

from hypvl.cli.common import run_main
from hypvl.cli.convert import main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
