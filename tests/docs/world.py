"""A folder in which the commands of the docs find what they name: miniature data, tiny checkpoints, short runs."""

import contextlib
import io
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import torch

from hypvl.config import LazyConfig, instantiate
from tests.data import raw_grit
from tests.data.helpers import jpeg, redcaps, write_tar
from tests.docs.checkout import make_checkout
from tests.docs.named_models import make_named_models
from tests.docs.substitutions import CHECKPOINTS, RUNS, SMALL_DEMO, SMALL_VIT, STEPS
from tests.evaluation.smoke import make_miniatures
from tests.integrations.miniature import Miniature
from tests.negatives.test_convert import ITEM, save

ROOT = Path(__file__).resolve().parents[2]
LARGE_IMAGES = [
    "model.visual.image_size=224", "model.visual_head.out_features=512", "model.textual_head.out_features=512",
]  # fmt: skip
SMALL = shlex.split(SMALL_DEMO)


def make_world(root: Path) -> None:
    """Fill an empty folder."""
    shutil.copytree(ROOT / "configs", root / "configs", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("scripts", "assets", "benchmarks"):
        (root / name).symlink_to(ROOT / name)
    make_miniatures(root)
    _training_data(root / "datasets")
    _photos(root)
    _captions_of_coco(root)
    _checkpoints(root / "checkpoints")
    make_named_models(root)
    Miniature.write(root / "datasets" / "harness")
    _package_of_the_reader(root)
    make_checkout(root / "checkout")
    _runs(root)


def _training_data(datasets: Path) -> None:
    for name in ("redcaps", "cc12m"):
        for shard in range(2):
            members = [m for i in range(8) for m in redcaps(f"s{shard}-{i}", 10 * shard + i)]
            write_tar(_made(datasets / name) / f"{shard:05d}.tar", members)
    files = _made(datasets / "cc12m_files" / "00000")
    (files / "000000000.jpg").write_bytes(jpeg(0))
    (files / "000000000.json").write_text('{"caption": "a red square"}', encoding="utf-8")
    raw = _made(datasets / "grit" / "raw")
    raw_grit.write_shard(raw / "00000.tar", [raw_grit.members() for _ in range(4)])


def _photos(root: Path) -> None:
    """Images with captions in the layouts of a user's own data."""
    shutil.copytree(root / "datasets" / "mine" / "images", root / "images")
    header, *rows = (root / "datasets" / "mine" / "pairs.csv").read_text(encoding="utf-8").splitlines()
    table = [f"{header},class", *(f"{row},square" for row in rows)]
    (root / "pairs.csv").write_text("\n".join(table) + "\n", encoding="utf-8")
    captions = [{"id": str(number), "caption": f"a red square number {number}"} for number in range(8)]
    (root / "captions.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in captions), encoding="utf-8"
    )
    for place in ("photos", "photos/whole", "photos/crops", "photos/cat", "photos/dog"):
        for image in (root / "images").glob("*.png"):
            _made(root / place)
            shutil.copy(image, root / place)


def _captions_of_coco(root: Path) -> None:
    """Captions with their images for hard negatives, and published negatives of one."""
    names = {number: f"COCO_train2014_{number:012d}.jpg" for number in range(1, 9)}
    images = [{"id": number, "file_name": name} for number, name in names.items()]
    annotations = [{"id": n, "image_id": n, "caption": "A black dog is next to a small cat."} for n in names]
    path = _made(root / "annotations") / "captions_train2014.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}), encoding="utf-8")
    for number, name in names.items():
        (_made(root / "datasets" / "coco" / "train2014") / name).write_bytes(jpeg(number))
    save(_made(root / "generated_data") / "0.npy", [{**ITEM, "id": n, "image_id": n} for n in names])


def write_lists_of_pairs(root: Path, url: str) -> None:
    """Lists of captions and of addresses of the server of tests/data/gather."""
    addresses = [f"{url}/good/{number}" for number in range(4)]
    rows = "".join(f"a dog\t{address}\n" for address in addresses)
    (root / "Train_GCC-training.tsv").write_text(rows, encoding="utf-8")
    table = pyarrow.table({"caption": ["a dog"] * len(addresses), "link": addresses})
    pyarrow.parquet.write_table(table, root / "pairs.parquet")


def _checkpoints(folder: Path) -> None:
    _made(folder)
    for name in CHECKPOINTS:
        config = LazyConfig.load(ROOT / "configs" / f"train_{name.partition('_')[0]}_demo.py")
        config = LazyConfig.apply_overrides(config, SMALL)
        torch.manual_seed(0)
        state = instantiate(config.model).state_dict()
        content = {"format_version": 1, "model": state, "iteration": 0, "config": LazyConfig.to_yaml(config)}
        torch.save(content, folder / f"{name}.pth")
    # hyper-models gives its own models images of 224 pixels, and takes 512 + 1 numbers
    config = LazyConfig.load(ROOT / "configs" / "train_meru_demo.py")
    config = LazyConfig.apply_overrides(config, [*SMALL, *LARGE_IMAGES])
    content = {"format_version": 1, "model": instantiate(config.model).state_dict(), "iteration": 0}
    torch.save({**content, "config": LazyConfig.to_yaml(config)}, folder / "meru_224.pth")


def _runs(root: Path) -> None:
    """Train one run, evaluate it, copy it under the other names; and one with a ViT, to start from."""
    first, vit = root / "output" / RUNS[0], root / "output" / "clip_vit_b"
    steps = shlex.split(STEPS.replace("train.num_iterations=2", "train.num_iterations=4"))
    steps += ["train.checkpoint_period=2", "train.log_period=1"]
    train = ["train", "--num-gpus", "0"]
    only = ["--only", "scenes_retrieval,scenes_radii,digits", "--num-workers", "0", "--device", "cpu"]
    for words in (
        [*train, "--config", "configs/train_meru_demo.py", "--output-dir", str(first), *SMALL, *steps],
        [
            *train,
            "--config",
            "configs/train_clip_vit_b.py",
            "--output-dir",
            str(vit),
            *shlex.split(STEPS + SMALL_VIT),
        ],
        ["evaluate", "--config", "configs/eval_demo.py", "--checkpoint-path", str(first), *only],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "hypvl", *words], cwd=root, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    for name in RUNS[1:]:
        shutil.copytree(first, root / "output" / name)
    _run_that_gives_up(root, [*train, "--config", "configs/train_clip_demo.py", *SMALL, *steps])


def _run_that_gives_up(root: Path, train: list[str]) -> None:
    """A rate that no weight survives: what the run leaves of its last batch lies in output/run."""
    folder = root / "output" / "given_up"
    too_much = ["--output-dir", str(folder), "optim.optimizer.lr=1e30", "train.max_skipped_steps=1"]
    done = subprocess.run(
        [sys.executable, "-m", "hypvl", *train, *too_much],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "its samples are in skipped_batch_rank0.pt" in done.stderr, done.stderr
    shutil.copy(folder / "skipped_batch_rank0.pt", _made(root / "output" / "run"))


def _package_of_the_reader(root: Path) -> None:
    """``mypackage.losses.MyLoss``, and a config that names it."""
    package = _made(root / "mypackage")
    (package / "__init__.py").touch()
    (package / "losses.py").write_text("class MyLoss:\n    pass\n", encoding="utf-8")
    config = {"loss": {"_target_": "mypackage.losses.MyLoss"}}
    (_made(root / "output" / "mine") / "config.yaml").write_text(json.dumps(config), encoding="utf-8")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main() -> None:
    """Make a world to look at: python -m tests.docs.world FOLDER."""
    with contextlib.redirect_stdout(io.StringIO()):
        make_world(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
