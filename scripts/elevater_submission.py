"""Pack predictions: python scripts/elevater_submission.py --predictions output/x/predictions --output-dir output/x"""

import sys

from hypvl.cli.elevater_submission import run

if __name__ == "__main__":
    sys.exit(run())
