"""Fit I0T_post: python scripts/fit_standardization.py --checkpoint-path X.pth --train-samples 65536"""

import sys

from hypvl.cli.fit_standardization import run

if __name__ == "__main__":
    sys.exit(run())
