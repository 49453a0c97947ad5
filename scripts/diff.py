"""What differs between two runs? python scripts/diff.py output/meru_vit_b output/meru_4k"""

from hypvl.cli.common import run_main
from hypvl.cli.diff import main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
