"""Build the demo data: python scripts/make_demo_data.py --output-dir datasets/demo"""

from hypvl.cli.common import run_main
from hypvl.cli.make_demo_data import main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
