"""Draw data, train, evaluate and traverse a small model: python scripts/demo.py --model meru"""

from hypvl.cli.common import run_main
from hypvl.cli.demo import main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
