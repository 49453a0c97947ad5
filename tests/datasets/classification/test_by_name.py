"""Data sets by name, on miniatures of the layouts of their sources."""

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypvl.datasets.catalog import entries as entries_module
from hypvl.datasets.catalog.entries import FileSource, class_names, entries, entry_of, published_folders
from hypvl.datasets.classification.by_name import (
    CLASSIFICATION_SETS,
    MORE_CLASSIFICATION_SETS,
    classification_prompts,
    classification_set,
    needed,
)
from hypvl.datasets.demo import demo_classification_set
from hypvl.errors import ConfigError, DataError, MissingDataError
from hypvl.io.http import Patience
from hypvl.io.remote import download
from tests.evaluation.fakes import BLUE, RED, broken, image as pil_image
from tests.evaluation.miniatures import classification as miniatures

ALL = (*CLASSIFICATION_SETS, *MORE_CLASSIFICATION_SETS)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("datasets")
    miniatures.make(root)
    return root / "eval"


def test_the_twenty_sets() -> None:
    assert len(CLASSIFICATION_SETS) == 20
    assert set(MORE_CLASSIFICATION_SETS) == {"birdsnap", "gtsrb", "ucf101"}


#: Images in train, val, test, and names of the first two classes, as the miniatures have them.
EXPECTED: dict[str, tuple[tuple[int, int, int], list[str]]] = {
    "imagenet": ((10, 2, 6), ["tench", "goldfish"]),
    "food101": ((11, 1, 4), ["apple pie", "blueberry pie"]),  # 90 / 10 % of 12
    "cifar10": ((18, 2, 4), ["airplane", "automobile"]),
    "cifar100": ((18, 2, 6), ["apple", "aquarium fish"]),
    "cub2011": ((10, 2, 4), ["Black footed Albatross", "Laysan Albatross"]),  # 80 / 20 % of 12
    "sun397": ((10, 2, 4), ["abbey", "airport terminal"]),
    "cars": ((10, 2, 4), ["Audi A4", "BMW X5"]),
    "aircraft": ((4, 4, 4), ["A380", "Boeing 717"]),
    "dtd": ((4, 4, 4), ["banded", "dotted"]),
    "pets": ((10, 2, 4), ["Abyssinian", "American Bulldog"]),
    "caltech101": ((8, 2, 2), ["background", "accordion"]),  # 5 of 6 of each class train, of which 80 / 20 %
    "flowers102": ((4, 4, 4), ["pink primrose", "hard-leaved pocket orchid"]),
    "stl10": ((8, 2, 4), ["airplane", "bird"]),
    "eurosat": ((6, 6, 6), ["annual crop land", "forest"]),  # thirds of 18, as 5,000 of 15,000
    "resisc45": ((4, 4, 32), ["airplane", "baseball diamond"]),  # 10 / 10 / 80 %
    "country211": ((6, 4, 4), ["Andorra", "United Arab Emirates"]),
    "mnist": ((8, 2, 4), ["0", "1"]),
    "clevr": ((18, 2, 4), ["three", "four"]),  # 4,500 and 500 of 5,000
    "pcam": ((6, 4, 4), ["lymph node", "lymph node containing metastatic tumor tissue"]),
    "sst2": ((4, 4, 4), ["negative", "positive"]),
    "birdsnap": ((10, 2, 4), ["Acadian Flycatcher", "Acorn Woodpecker"]),
    "gtsrb": ((10, 2, 4), ["red and white circle 20 kph speed limit", "red and white circle 30 kph speed limit"]),
    "ucf101": ((10, 2, 4), ["Apply Eye Makeup", "Yo Yo"]),
}  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_splits_are_as_published_and_disjoint(name: str, sets: Path) -> None:
    sizes, classes = EXPECTED[name]
    parts = [classification_set(name, root=sets, split=split) for split in ("train", "val", "test")]
    assert tuple(map(len, parts)) == sizes
    assert list(parts[0].classes[:2]) == classes
    for part in parts:
        assert len(part) == len(part.keys) == len(part.labels) and set(part.labels) <= {0, 1}
        for i in range(len(part)):
            image, label = part[i]
            assert image.shape[0] == 3 and label == part.labels[i]
            color = image.float().mean(dim=(1, 2)).tolist()
            if name == "mnist":
                assert color == [255.0 * label] * 3
            else:  # the first class is red, the second blue
                assert color == pytest.approx(miniatures.COLORS[label], abs=1)
    if name in ("food101", "cub2011", "eurosat", "caltech101", "clevr", "birdsnap"):  # files, cut by us
        keys = [getattr(part, "ids", None) or part.keys for part in parts]
        assert len({key for part in keys for key in part}) == sum(sizes)


def test_cars_in_the_layout_of_torchvision(tmp_path: Path) -> None:
    import numpy as np
    from scipy.io import savemat

    folder = tmp_path / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array(["Audi A4", "BMW"], dtype=object)})
    rows = np.array([("1.jpg", 2), ("2.jpg", 1)], dtype=[("fname", object), ("class", object)])
    savemat(folder / "cars_test_annos_withlabels.mat", {"annotations": rows})
    pil_image(folder / "cars_test" / "1.jpg", RED)
    pil_image(folder / "cars_test" / "2.jpg", BLUE)
    cars = classification_set("cars", root=tmp_path)
    assert list(cars.labels) == [1, 0] and cars.classes == ["Audi A4", "BMW"]


def test_everything_in_one_webdataset_split_is_cut_as_published(tmp_path: Path) -> None:
    miniatures.webdataset(tmp_path / "resisc45", ["airplane", "airport"], ["{c}"], splits={"train": 10})
    sizes = [len(classification_set("resisc45", root=tmp_path, split=s)) for s in ("train", "val", "test")]
    assert sizes == [2, 2, 16]
    miniatures.webdataset(tmp_path / "cub2011", ["a", "b"], ["{c}"], splits={"train": 10})
    with pytest.raises(
        MissingDataError, match=r"cub2011: .* is incomplete .there is no test split; the set has train"
    ):
        classification_set("cub2011", root=tmp_path)


def test_names_go_by_folder_and_differences_are_listed(tmp_path: Path) -> None:
    folders = published_folders("eurosat")
    assert folders is not None and len(folders) == 10
    for folder in folders:
        pil_image(tmp_path / "eurosat" / "2750" / folder / "1.jpg", RED)
    data = classification_set("eurosat", root=tmp_path)
    assert data.classes[9] == "lake or sea"
    (tmp_path / "eurosat" / "2750" / "SeaLake").rename(tmp_path / "eurosat" / "2750" / "Lake")
    with pytest.raises(DataError, match="'Lake' is not a class of eurosat, and 'lake or sea' is missing"):
        classification_set("eurosat", root=tmp_path)
    (tmp_path / "eurosat" / "2750" / "Lake").rename(tmp_path / "eurosat" / "2750" / "forest")
    with pytest.raises(DataError, match="the folders Forest and forest are one class of eurosat, 'forest'"):
        classification_set("eurosat", root=tmp_path)
    miniatures.country211(tmp_path)
    (tmp_path / "country211" / "test" / "AD").rename(tmp_path / "country211" / "test" / "A_D_")
    assert list(classification_set("country211", root=tmp_path).classes) == [
        "United Arab Emirates",
        "Andorra",
    ]
    (tmp_path / "country211" / "test" / "A_D_").rename(tmp_path / "country211" / "test" / "Andora")
    with pytest.raises(DataError, match="'Andora' is not a class of country211"):
        classification_set("country211", root=tmp_path)


def test_names_are_there_for_every_class() -> None:
    for name in ("country211", "eurosat", "caltech101"):
        folders = published_folders(name)
        assert (
            folders is not None
            and list(folders) == sorted(folders)
            and len(folders) == entry_of(name).classes
        )
    for name in ("country211", "caltech101", "gtsrb", "clevr", "mnist"):
        assert len(class_names(name) or ()) == entry_of(name).classes


def test_a_broken_image_is_a_data_error(tmp_path: Path) -> None:
    miniatures.food101(tmp_path)
    broken(tmp_path / "food-101" / "images" / "apple_pie" / "6.jpg")
    with pytest.raises(DataError, match=r"apple_pie/6\.jpg: cannot decode the JPEG \(no frame header\)"):
        classification_set("food101", root=tmp_path)[0]


@pytest.mark.parametrize("name", ALL)
def test_a_missing_set_is_missing(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        MissingDataError, match=r"is not there \(looked in .*expected .*take it from http"
    ) as error:
        classification_set(name, root=tmp_path)
    assert str(tmp_path) in str(error.value) and entry_of(name).files[0] in str(error.value)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("cifar10", "cifar-10-batches-py/test_batch"), ("cifar100", "cifar-100-python/meta"),
        ("stl10", "stl10_binary/test_X.bin"), ("flowers102", "flowers-102/setid.mat"),
        ("cub2011", "CUB_200_2011/images.txt"), ("mnist", "MNIST/raw/t10k-labels-idx1-ubyte"),
        ("dtd", "dtd/dtd/labels/test1.txt"), ("sst2", "rendered-sst2/test/positive"), ("cars", "cars/test/1.tar"),
        ("country211", "country211/test"), ("birdsnap", "birdsnap/test"),
    ],
)  # fmt: skip
def test_the_missing_part_of_an_incomplete_set_is_named(name: str, part: str, tmp_path: Path) -> None:
    miniatures.MAKERS[name](tmp_path)
    path = tmp_path / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(MissingDataError, match=f"{name}: .* (is incomplete|is not there) .*expected"):
        classification_set(name, root=tmp_path)


def test_pcam_needs_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets  # before nothing can be found any more

    assert torchvision.datasets.PCAM
    (tmp_path / "pcam").mkdir()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        DataError, match=r"pip install h5py, or put the set there in the WebDataset layout .pcam/"
    ):
        classification_set("pcam", root=tmp_path)


def test_splits_must_be_known(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"'dtd': split 'valid': unknown .*; expected one of train, val, test"
    ):
        classification_set("dtd", root=tmp_path, split="valid")


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A folder served on this machine."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", folder
    server.shutdown()
    thread.join()
    server.server_close()


def replaced(monkeypatch: pytest.MonkeyPatch, name: str, **changes: object) -> None:
    import dataclasses

    changed = {**entries(), name: dataclasses.replace(entries()[name], **changes)}  # type: ignore[arg-type]
    monkeypatch.setattr(entries_module, "entries", lambda: changed)


def test_a_missing_set_is_downloaded(
    mirror: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, served = mirror
    miniatures.flowers102(tmp_path / "made")
    made = tmp_path / "made" / "flowers-102"
    shutil.make_archive(str(served / "102flowers"), "gztar", made, "jpg")
    for name in ("setid.mat", "imagelabels.mat"):
        shutil.copy(made / name, served)
    sources = (
        FileSource(f"{address}/102flowers.tar.gz", "flowers-102", "tar"),
        FileSource(f"{address}/setid.mat", "flowers-102", "none", file="setid.mat"),
        FileSource(f"{address}/imagelabels.mat", "flowers-102", "none", file="imagelabels.mat"),
    )
    replaced(monkeypatch, "flowers102", downloads=sources)
    root = tmp_path / "eval"
    with pytest.raises(MissingDataError, match="download=true fetches it"):
        classification_set("flowers102", root=root)
    assert not root.exists()
    assert len(classification_set("flowers102", root=root, download=True)) == 4
    shutil.rmtree(served)  # now it is here
    assert len(classification_set("flowers102", root=root, split="train", download=True)) == 4


def test_archives_inside_archives(
    mirror: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, served = mirror
    miniatures.caltech101(tmp_path / "made")
    inner = tmp_path / "zip" / "caltech-101"
    inner.mkdir(parents=True)
    shutil.make_archive(
        str(inner / "101_ObjectCategories"), "gztar", tmp_path / "made" / "caltech101", "101_ObjectCategories"
    )
    shutil.make_archive(str(served / "caltech-101"), "zip", tmp_path / "zip")
    source = entry_of("caltech101").downloads[0]
    changed = FileSource(f"{address}/caltech-101.zip", source.into, source.unpack, inner=source.inner)
    replaced(monkeypatch, "caltech101", downloads=(changed,))
    assert len(classification_set("caltech101", root=tmp_path / "eval", download=True)) == 2


def test_a_webdataset_is_downloaded_or_read_where_it_lies(
    mirror: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, served = mirror
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # this server sends no parts
    miniatures.cars(served)
    remote = classification_set("cars", root=address)
    assert list(remote.labels) == [0, 1, 0, 1] and remote.prompts == ["a photo of a {c}.", "i love my {c}!"]
    assert remote[1][0].float().mean(dim=(1, 2)).tolist() == list(BLUE)
    with pytest.raises(MissingDataError, match=r"dtd/test/nshards\.txt|no test split"):
        classification_set("dtd", root=address)
    replaced(monkeypatch, "cars", webdataset=f"{address}/cars")
    root = tmp_path / "eval"
    assert list(classification_set("cars", root=root, download=True).keys) == list(remote.keys)
    assert not (root / "cars" / "train").exists()
    assert len(classification_set("cars", root=root, split="val", download=True)) == 2


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", None])
def test_what_cannot_be_downloaded_is_missing_with_what_to_do_by_hand(
    address: str | None, mirror: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = functools.partial(download, patience=Patience(attempts=1))
    monkeypatch.setattr("hypvl.datasets.catalog.fetching.download", once)
    source = FileSource(f"{address or mirror[0]}/none.tar.gz", ".", "tar")
    replaced(monkeypatch, "aircraft", downloads=(source,))
    why = "answers 404" if address is None else "cannot be reached"
    with pytest.raises(
        MissingDataError, match=f"aircraft: could not be downloaded: .*{why}.*By hand: .*variants"
    ):
        classification_set("aircraft", root=tmp_path / "eval", download=True)


def test_a_root_that_cannot_be_written_to_leaves_the_set_missing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        MissingDataError, match=r"dtd: .*is not there.* It cannot be fetched: .*file/eval cannot be"
    ):
        classification_set("dtd", root=tmp_path / "file" / "eval", download=True)


def test_downloads_know_which_splits_need_them() -> None:
    assert needed(entry_of("pcam"), "val") == ("val",) and needed(entry_of("gtsrb"), "val") == ("train",)
    assert needed(entry_of("clevr"), "test") == ("val",) and needed(entry_of("caltech101"), "test") == (
        "all",
    )
    for entry in entries().values():
        for source in entry.downloads:
            assert source.url.startswith("http") and set(source.splits) <= set(entry.published)
            assert source.unpack in ("tar", "zip", "gz", "none")
            assert (source.unpack in ("tar", "zip")) == (source.file is None)
            assert source.md5 is None or len(source.md5) == 32


def test_unknown_names_are_answered_with_the_closest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'cifar': unknown \\(closest: cifar1"):
        classification_set("cifar", root=tmp_path)
    with pytest.raises(ConfigError, match="closest: imagenet"):
        classification_prompts("image-net")
    with pytest.raises(ConfigError, match="closest: digits"):
        demo_classification_set("digit", root=tmp_path)


def test_prompts_by_set() -> None:
    assert len(classification_prompts("imagenet")) == 80
    assert len(classification_prompts("caltech101")) == 34 and len(classification_prompts("cifar10")) == 18
    assert "a photo of a {} texture." in classification_prompts("dtd")
    for name in ALL:
        plain, subreddit = classification_prompts(name), classification_prompts(name, style="subreddit")
        assert plain and all(text.count("{}") == 1 for text in plain), name
        assert len(subreddit) >= 2 and all(" : " in text and text.count("{}") == 1 for text in subreddit), (
            name
        )
    with pytest.raises(ValueError, match="style: got 'poem'; expected 'clip' or 'subreddit'"):
        classification_prompts("dtd", style="poem")  # type: ignore[arg-type]


def test_processes_that_miss_the_same_set_fetch_it_once(
    mirror: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hypvl.datasets.classification import by_name as catalog

    address, served = mirror
    miniatures.cub2011(tmp_path / "made")
    shutil.make_archive(str(served / "cub"), "gztar", tmp_path / "made", "CUB_200_2011")
    replaced(monkeypatch, "cub2011", downloads=(FileSource(f"{address}/cub.tar.gz", ".", "tar"),))
    fetched = []
    original = catalog.fetch
    monkeypatch.setattr(catalog, "fetch", lambda *a, **k: (fetched.append(1), original(*a, **k)))
    result: list[int] = []

    def ask() -> None:
        result.append(len(classification_set("cub2011", root=tmp_path / "eval", download=True)))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert result == [4] * 4 and fetched == [1]
