"""Hard negatives: python scripts/make_hard_negatives.py --captions captions_train2014.json --output negatives.jsonl"""

import sys

from hypvl.cli.make_hard_negatives import run

if __name__ == "__main__":
    sys.exit(run())
