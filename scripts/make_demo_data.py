"""Build the demo data: python scripts/make_demo_data.py --output-dir datasets/demo"""

import sys

from hypvl.cli.make_demo_data import run

if __name__ == "__main__":
    sys.exit(run())
