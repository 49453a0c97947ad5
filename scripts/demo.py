"""Draw data, train, evaluate and traverse a small model: python scripts/demo.py --model meru"""

import sys

from hypvl.cli.demo import run

if __name__ == "__main__":
    sys.exit(run())
