"""Cut the boxes of raw GRIT shards out: python scripts/prepare_grit.py --tarfiles 'raw/*.tar' --output-dir processed"""

import sys

from hypvl.cli.prepare_grit import run

if __name__ == "__main__":
    sys.exit(run())
