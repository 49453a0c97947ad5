"""Rank by the root: python scripts/rank_by_root.py --input photos --checkpoint-path X.pth"""

from hypvl.cli.common import run_main
from hypvl.cli.rank_by_root import main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
