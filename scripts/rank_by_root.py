"""Rank by the root: python scripts/rank_by_root.py --input photos --checkpoint-path X.pth"""

import sys

from hypvl.cli.rank_by_root import run

if __name__ == "__main__":
    sys.exit(run())
