"""One HTML page about a run: python scripts/report.py --run output/demo_meru"""

from hypvl.cli.common import run_main
from hypvl.cli.report import main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
