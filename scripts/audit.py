"""Does a model's geometry work? python scripts/audit.py --checkpoint-path output/demo_meru/checkpoint_final.pth"""

import sys

from hypvl.cli.audit import run

if __name__ == "__main__":
    sys.exit(run())
