"""What is installed, which data are there and whole: python scripts/doctor.py --config configs/eval_elevater.py"""

import sys

from hypvl.cli.doctor import run

if __name__ == "__main__":
    sys.exit(run())
