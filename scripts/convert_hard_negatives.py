"""Published hard negatives to JSONL: python scripts/convert_hard_negatives.py --input *.npy --output negatives.jsonl"""

from hypvl.cli.common import run_main
from hypvl.cli.convert_hard_negatives import main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
