"""Store a teacher's features: python scripts/cache_teacher.py --config configs/NAME.py --output-dir output/features"""

from hypvl.cli.cache_teacher import main
from hypvl.cli.common import run_main

if __name__ == "__main__":
    raise SystemExit(run_main(main))
