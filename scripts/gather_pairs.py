"""Download lists of captions and addresses: python scripts/gather_pairs.py pairs.tsv --output-dir datasets/pairs"""

from hypvl.cli.common import run_main
from hypvl.cli.gather_pairs import main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
