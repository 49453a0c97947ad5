"""Hard negatives: python scripts/make_hard_negatives.py --captions captions_train2014.json --output negatives.jsonl"""

from hypvl.cli.common import run_main
from hypvl.cli.make_hard_negatives import main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
