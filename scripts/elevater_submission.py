"""Pack predictions: python scripts/elevater_submission.py --predictions output/x/predictions --output-dir output/x"""

from hypvl.cli.common import run_main
from hypvl.cli.elevater_submission import main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
