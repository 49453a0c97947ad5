"""Kill a run at random moments, and compare it with one nobody disturbed: python scripts/chaos.py --kills 30"""

from hypvl.cli.chaos import main
from hypvl.cli.common import run_main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
