"""Published hard negatives to JSONL: python scripts/convert_hard_negatives.py --input *.npy --output negatives.jsonl"""

import sys

from hypvl.cli.convert_hard_negatives import run

if __name__ == "__main__":
    sys.exit(run())
