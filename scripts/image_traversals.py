"""Walk to [ROOT]: python scripts/image_traversals.py --image-path assets/cat.png --checkpoint-path model.pth"""

from hypvl.cli.common import run_main
from hypvl.cli.image_traversals import main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
