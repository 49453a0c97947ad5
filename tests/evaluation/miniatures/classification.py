"""The classification sets in small, in the layouts of their sources; `root` stands for ./datasets.

Fills roots.eval of configs/eval_zero_shot_classification.py and of everything else that reads
``classification_set``: at least 2 images of 2 classes in each of train, val and test. The first class is red,
the second blue, a third one green. ImageNet has its 1,000 folders, so its zero-shot prompts are 80,000 unless
``evaluate.imagenet.prompts`` is overridden.
"""

import io
import json
import pickle
import struct
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tests.evaluation.fakes import BLUE, GREEN, RED, image

COLORS = (RED, BLUE, GREEN)


def make(root: Path) -> None:
    """Write all of them below ``root / "eval"``."""
    folder = root / "eval"
    folder.mkdir(parents=True, exist_ok=True)
    for write in MAKERS.values():
        write(folder)


def imagenet(root: Path) -> None:
    for split, count in (("train", 6), ("val", 3)):
        ids = imagenet_folders(root / "imagenet" / split)
        for label in range(2):
            for i in range(count):
                image(root / "imagenet" / split / ids[label] / f"{split}_{i:08d}.JPEG", COLORS[label])


def imagenet_folders(folder: Path) -> list[str]:
    """Make the 1,000 class folders, empty; gives their names."""
    from timm.data import ImageNetInfo

    ids = list(ImageNetInfo("imagenet-1k").label_names())
    for name in ids:
        (folder / name).mkdir(parents=True, exist_ok=True)
    return ids


def food101(root: Path) -> None:
    for split, ids in (("train", range(6)), ("test", range(6, 8))):
        meta = {name: [f"{name}/{i}" for i in ids] for name in ("apple_pie", "blueberry_pie")}
        path = root / "food-101" / "meta" / f"{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(meta))
        for label, name in enumerate(meta):
            for i in ids:
                image(root / "food-101" / "images" / name / f"{i}.jpg", COLORS[label])


def cifar_file(path: Path, content: dict[bytes, object]) -> None:
    """As Python 2 and NumPy 1 wrote it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2).replace(b"numpy._core.", b"numpy.core."))


def cifar_pixels(labels: Sequence[int]) -> np.ndarray:
    return np.stack(
        [np.repeat(np.array(COLORS[label], dtype=np.uint8), 1024) for label in labels]
    )  # (n, 3072)


def cifar10(root: Path) -> None:
    folder = root / "cifar-10-batches-py"
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        labels = [0, 1, 0, 1]
        cifar_file(folder / name, {b"data": cifar_pixels(labels), b"labels": labels})
    names = b"airplane automobile bird cat deer dog frog horse ship truck".split()
    cifar_file(folder / "batches.meta", {b"label_names": names, b"num_vis": 3072})


def cifar100(root: Path) -> None:
    folder = root / "cifar-100-python"
    for name, count in (("train", 10), ("test", 3)):
        labels = [0, 1] * count
        cifar_file(
            folder / name,
            {b"data": cifar_pixels(labels), b"fine_labels": labels, b"coarse_labels": [0] * len(labels)},
        )
    names = [b"apple", b"aquarium_fish", *(f"class_{i}".encode() for i in range(98))]
    cifar_file(folder / "meta", {b"fine_label_names": names})


def cub2011(root: Path) -> None:
    folder = root / "CUB_200_2011"
    classes = ["001.Black_footed_Albatross", "002.Laysan_Albatross"]
    images = [f"{name}/{name[4:]}_{i:04d}.jpg" for name in classes for i in range(8)]
    for i, name in enumerate(images):
        image(folder / "images" / name, COLORS[i // 8])
    lists = {
        "classes": classes,
        "images": images,
        "image_class_labels": [1 + i // 8 for i in range(16)],
        "train_test_split": [int(i % 8 < 6) for i in range(16)],
    }
    for name, rows in lists.items():
        (folder / f"{name}.txt").write_text("".join(f"{i} {row}\n" for i, row in enumerate(rows, 1)))


def png(color: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7), color).save(buffer, format="PNG")
    return buffer.getvalue()


def npy(row: Sequence[object]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array(row))
    return buffer.getvalue()


def webdataset(
    folder: Path,
    classes: Sequence[str],
    templates: Sequence[str],
    *,
    splits: dict[str, int],
    rows: Sequence[Sequence[object]] = (),
) -> Path:
    """A set in the WebDataset layout, each split of two TARs with so many images of each of two classes.

    ``rows`` are the numbers of each image for its .npy; without them there is none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classnames.txt").write_text("".join(f"{name}\n" for name in classes))
    (folder / "zeroshot_classification_templates.txt").write_text("".join(f"{t}\n" for t in templates))
    (folder / "dataset_type.txt").write_text("classification")
    for split, count in splits.items():
        (folder / split).mkdir()
        (folder / split / "nshards.txt").write_text("2")
        for shard in range(2):
            with tarfile.open(folder / split / f"{shard}.tar", "w") as tar:
                for i in range(shard, 2 * count, 2):
                    for name, content in (
                        ("cls", str(i // count).encode()),
                        ("png", png(COLORS[i // count])),
                        *([("npy", npy(rows[i]))] if rows else ()),
                    ):
                        entry = tarfile.TarInfo(f"s{i:07d}.{name}")
                        entry.size = len(content)
                        tar.addfile(entry, io.BytesIO(content))
    return folder


def sun397(root: Path) -> None:
    webdataset(
        root / "sun397", ["abbey", "airport terminal"], ["a photo of a {c}."], splits={"train": 6, "test": 2}
    )


def cars(root: Path) -> None:
    webdataset(
        root / "cars", ["Audi A4", "BMW X5"], ["a photo of a {c}.", "i love my {c}!"], splits={"train": 6, "test": 2}
    )  # fmt: skip


def aircraft(root: Path) -> None:
    folder = root / "fgvc-aircraft-2013b" / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "variants.txt").write_text("A380\nBoeing 717\n")
    number = 0
    for split in ("train", "val", "test"):
        lines = []
        for label, name in enumerate(["A380", "Boeing 717"] * 2):
            number += 1
            lines.append(f"{number:07d} {name}\n")
            image(folder / "images" / f"{number:07d}.jpg", COLORS[label % 2])
        (folder / f"images_variant_{split}.txt").write_text("".join(lines))


def dtd(root: Path) -> None:
    folder = root / "dtd" / "dtd"
    (folder / "labels").mkdir(parents=True)
    for split in ("train", "val", "test"):
        names = [f"{name}/{name}_{split}{i}.jpg" for name in ("banded", "dotted") for i in range(2)]
        (folder / "labels" / f"{split}1.txt").write_text("\n".join(names) + "\n")
        for i, name in enumerate(names):
            image(folder / "images" / name, COLORS[i // 2])


def pets(root: Path) -> None:
    folder = root / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    for split, ids in (("trainval", range(6)), ("test", range(6, 8))):
        lines = []
        for label, name in enumerate(("Abyssinian", "american_bulldog")):
            for i in ids:
                lines.append(f"{name}_{i} {label + 1} {label + 1} 1\n")
                image(folder / "images" / f"{name}_{i}.jpg", COLORS[label])
        (folder / "annotations" / f"{split}.txt").write_text("".join(lines))


def folders(folder: Path, names: Sequence[str], count: int, *, suffix: str = ".jpg") -> None:
    for label, name in enumerate(names):
        for i in range(count):
            image(folder / name / f"image_{i + 1:04d}{suffix}", COLORS[label % 3])


def caltech101(root: Path) -> None:
    folders(root / "caltech101" / "101_ObjectCategories", ["BACKGROUND_Google", "accordion"], 6)
    # 5 of each for training (one less than there are), of which 2 of 10 are the validation split


def flowers102(root: Path) -> None:
    from scipy.io import savemat

    folder = root / "flowers-102"
    for i in range(1, 13):
        image(folder / "jpg" / f"image_{i:05d}.jpg", COLORS[i % 2])
    savemat(folder / "imagelabels.mat", {"labels": np.array([[1 + i % 2 for i in range(1, 13)]], np.uint8)})
    parts = {"trnid": [[1, 2, 3, 4]], "valid": [[5, 6, 7, 8]], "tstid": [[9, 10, 11, 12]]}
    savemat(folder / "setid.mat", {name: np.array(ids, np.uint16) for name, ids in parts.items()})


def stl10(root: Path) -> None:
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    for split, count in (("train", 5), ("test", 2)):
        labels = np.array([1, 2] * count, dtype=np.uint8)
        pixels = np.stack([np.tile(np.array(COLORS[i - 1], np.uint8)[:, None], 96 * 96) for i in labels])
        pixels.tofile(folder / f"{split}_X.bin")
        labels.tofile(folder / f"{split}_y.bin")
    (folder / "class_names.txt").write_text(
        "airplane\nbird\ncar\ncat\ndeer\ndog\nhorse\nmonkey\nship\ntruck\n"
    )


def eurosat(root: Path) -> None:
    folders(root / "eurosat" / "2750", ["AnnualCrop", "Forest"], 9)


def resisc45(root: Path) -> None:
    folders(root / "resisc45" / "NWPU-RESISC45", ["airplane", "baseball_diamond"], 20)


def country211(root: Path) -> None:
    for split, count in (("train", 3), ("valid", 2), ("test", 2)):
        folders(root / "country211" / split, ["AD", "AE"], count)


def mnist(root: Path) -> None:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 10), ("t10k", 4)):
        images = b"".join(bytes([255 * (i % 2)]) * 784 for i in range(count))  # black noughts, white ones
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">iiii", 0x803, count, 28, 28) + images)
        labels = bytes(i % 2 for i in range(count))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 0x801, count) + labels)


def clevr(root: Path) -> None:
    folder = root / "clevr" / "CLEVR_v1.0"
    for split, count in (("train", 20), ("val", 4)):
        scenes = []
        for i in range(count):
            name = f"CLEVR_{split}_{i:06d}.png"
            image(folder / "images" / split / name, COLORS[i % 2])
            scenes.append({"image_filename": name, "objects": [{}] * (3 + i % 2)})
        path = folder / "scenes" / f"CLEVR_{split}_scenes.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"scenes": scenes}))


def pcam(root: Path) -> None:
    names = ["lymph node", "lymph node containing metastatic tumor tissue"]
    webdataset(root / "pcam", names, ["this is a photo of {c}"], splits={"train": 3, "val": 2, "test": 2})


def sst2(root: Path) -> None:
    for split in ("train", "valid", "test"):
        folders(root / "rendered-sst2" / split, ["negative", "positive"], 2, suffix=".png")


def birdsnap(root: Path) -> None:
    for split, count in (("train", 6), ("test", 2)):
        folders(root / "birdsnap" / split, ["Acadian_Flycatcher", "Acorn_Woodpecker"], count)


def ucf101(root: Path) -> None:
    for split, count in (("train", 6), ("test", 2)):
        folders(root / "ucf101" / split, ["ApplyEyeMakeup", "YoYo"], count)


def gtsrb(root: Path) -> None:
    base = root / "gtsrb"
    rows = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for label in range(2):
        for i in range(6):
            image(base / "GTSRB" / "Training" / f"{label:05d}" / f"{i:05d}_00000.ppm", COLORS[label])
        for i in range(2):
            name = f"{2 * label + i:05d}.ppm"
            image(base / "GTSRB" / "Final_Test" / "Images" / name, COLORS[label])
            rows.append(f"{name};9;7;0;0;9;7;{label}")
    (base / "GT-final_test.csv").write_text("\n".join(rows) + "\n")


MAKERS: dict[str, Callable[[Path], None]] = {
    "imagenet": imagenet, "food101": food101, "cifar10": cifar10, "cifar100": cifar100, "cub2011": cub2011,
    "sun397": sun397, "cars": cars, "aircraft": aircraft, "dtd": dtd, "pets": pets, "caltech101": caltech101,
    "flowers102": flowers102, "stl10": stl10, "eurosat": eurosat, "resisc45": resisc45, "country211": country211,
    "mnist": mnist, "clevr": clevr, "pcam": pcam, "sst2": sst2, "birdsnap": birdsnap, "gtsrb": gtsrb, "ucf101": ucf101,
}  # fmt: skip
