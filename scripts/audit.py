"""Does a model's geometry work? python scripts/audit.py --checkpoint-path output/demo_meru/checkpoint_final.pth"""

from hypvl.cli.audit import main
from hypvl.cli.common import run_main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
