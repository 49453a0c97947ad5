"""Cut the boxes of raw GRIT shards out: python scripts/prepare_grit.py --tarfiles 'raw/*.tar' --output-dir processed"""

from hypvl.cli.common import run_main
from hypvl.cli.prepare_grit import main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
