"""What is installed, which data are there and whole: python scripts/doctor.py --config configs/eval_elevater.py"""

from hypvl.cli.common import run_main
from hypvl.cli.doctor import main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
