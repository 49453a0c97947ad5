"""Write hypvl/models/zoo/*.json from the training configs: python scripts/update_zoo.py

The zoo is what an installed hypvl builds models from by name; a test keeps it equal to configs/.
"""

import json
from pathlib import Path

from omegaconf import OmegaConf

from hypvl.config import LazyConfig

ROOT = Path(__file__).resolve().parents[1]


def definitions() -> dict[str, str]:
    """File name -> content, one for each full-size training config."""
    found = {}
    for path in sorted((ROOT / "configs").glob("train_*_vit_*.py")):
        model = OmegaConf.to_container(LazyConfig.load(path).model)
        found[f"{path.stem.removeprefix('train_')}.json"] = json.dumps({"model": model}, indent=2) + "\n"
    return found


if __name__ == "__main__":
    for name, content in definitions().items():
        (ROOT / "hypvl" / "models" / "zoo" / name).write_text(content)
        print(name)
