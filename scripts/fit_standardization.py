"""Fit I0T_post: python scripts/fit_standardization.py --checkpoint-path X.pth --train-samples 65536"""

from hypvl.cli.common import run_main
from hypvl.cli.fit_standardization import main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
