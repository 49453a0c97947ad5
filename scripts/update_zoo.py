"""Write hypvl/models/zoo/*.json from the training configs: python scripts/update_zoo.py

The zoo is what an installed hypvl builds models from by name; a test keeps it equal to configs/.
"""

import argparse
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Models that were published without a recipe: name -> their building block.
PUBLISHED = {
    "cloob_rn50": "common/model/clip_rn50.py",
    "cloob_rn50x4": "common/model/clip_rn50x4.py",
    "cyclip_rn50": "common/model/clip_rn50.py",
    "hyper3clip_v1_vit_b": "common/model/hyper3clip_v1.py",
    "longclip_vit_b_16": "common/model/longclip_vit_b_16.py",
    "longclip_vit_l_14": "common/model/longclip_vit_l_14.py",
    "pacs_vit_b_32": "common/model/clip_vit_b_32.py",
    "protoclip_rn50": "common/model/protoclip_rn50.py",
}


def definitions() -> dict[str, str]:
    """File name -> content, one for each full-size training config, and of :data:`PUBLISHED`."""
    from omegaconf import OmegaConf

    from hypvl.config import LazyConfig

    recipes = sorted((ROOT / "configs").glob("train_*_vit_*.py"))
    paths = {path.stem.removeprefix("train_"): path for path in recipes}
    paths |= {name: ROOT / "configs" / block for name, block in PUBLISHED.items()}
    content_of = {}
    for name, path in paths.items():
        model = OmegaConf.to_container(LazyConfig.load(path).model)
        content_of[f"{name}.json"] = json.dumps({"model": model}, indent=2) + "\n"
    return content_of


if __name__ == "__main__":
    argparse.ArgumentParser(
        description="Write the model definitions of the package from configs/."
    ).parse_args()
    for name, content in definitions().items():
        (ROOT / "hypvl" / "models" / "zoo" / name).write_text(content)
        print(name)
