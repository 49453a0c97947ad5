"""Weights by address and by name: the right checksum or nothing, and where the authors publish what has no address."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from loguru import logger

import hypvl
from hypvl.config import LazyConfig
from hypvl.errors import CheckpointError, ConfigError
from hypvl.io.remote import DownloadError
from hypvl.models.convert.published import to_official
from hypvl.models.hub import from_pretrained, list_models, save_pretrained
from hypvl.models.pretrained import download_weights, list_pretrained
from tests.io.test_download import server, url
from tests.models.test_hub import TINY, same

__all__ = ["server"]  # a fixture
PAGES = {"https://github.com/facebookresearch/meru", "https://github.com/samgregoost/atmg",
         "https://github.com/PalAvik/hycoclip", "https://huggingface.co/hayeonkim/uncha",
         "https://huggingface.co/hyper3labs/hyper3-clip-v1"}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(3)
    return hypvl.create_model(TINY)


@pytest.fixture(scope="module")
def published(model: Any) -> bytes:
    """A file as authors publish it, without a config."""
    file = io.BytesIO()
    torch.save({"model": to_official(model.state_dict())}, file)
    return file.getvalue()


@pytest.fixture
def address(server: Any, published: bytes) -> str:
    server.state["content"] = published
    return url(server, "/meru tiny.pth")


def test_an_address_with_its_checksum_is_a_model(
    server: Any, address: str, model: Any, published: bytes, tmp_path: Path
) -> None:
    right = hashlib.sha256(published).hexdigest()
    loaded = from_pretrained(f"{address}#sha256={right.upper()}", TINY, cache_dir=tmp_path)
    assert same(loaded, model) and not loaded.training
    assert same(from_pretrained(address, TINY, sha256=right, cache_dir=tmp_path), model)
    assert len(server.state["requests"]) == 1  # kept
    (file,) = tmp_path.glob("*-meru_tiny.pth")
    file.write_bytes(b"damaged")
    assert same(from_pretrained(address, TINY, sha256=right, cache_dir=tmp_path), model)
    assert len(server.state["requests"]) == 2


def test_another_checksum_leaves_no_file(address: str, tmp_path: Path) -> None:
    with pytest.raises(
        DownloadError, match=rf"its SHA256 is [0-9a-f]{{64}}, expected {'0' * 64}; it was deleted"
    ):
        from_pretrained(f"{address}#sha256={'0' * 64}", TINY, cache_dir=tmp_path)
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []


def test_without_a_checksum_it_is_named(address: str, published: bytes, tmp_path: Path) -> None:
    said: list[str] = []
    sink = logger.add(lambda line: said.append(str(line)), level="WARNING", format="{message}")
    try:
        download_weights(address, cache_dir=tmp_path)
        download_weights(address, cache_dir=tmp_path)  # nothing is said of what is there
    finally:
        logger.remove(sink)
    assert len(said) == 1
    assert (
        f"no checksum was given; the file that came has #sha256={hashlib.sha256(published).hexdigest()}"
        in said[0]
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"\n<!DOCTYPE html><title>Sign in</title>",
            r"page\.pth: gave a web page, not weights; it was deleted",
        ),
        (b'{"error": "try later"}', r"gave what begins with b'\{\"error\": \"try l', not weights"),
        (b"", r"gave what begins with b'', not weights"),
    ],
)
def test_what_is_no_weights_is_not_kept(
    server: Any, model: Any, published: bytes, content: bytes, message: str, tmp_path: Path
) -> None:
    server.state["content"] = content
    address = url(server, "/page.pth")
    for _ in range(2):
        with pytest.raises(DownloadError, match=message):
            from_pretrained(address, TINY, cache_dir=tmp_path)
        assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []
    server.state.update(content=published, etag='"two"')
    assert same(from_pretrained(address, TINY, cache_dir=tmp_path), model)


@pytest.mark.parametrize(
    ("ending", "sha256", "message"),
    [
        ("#sha256=abc", None, "sha256 is 'abc'; expected 64 hex digits"),
        ("#sha256=", None, "sha256 is ''; expected 64 hex digits"),
        ("", "x" * 64, "expected 64 hex digits"),
        ("#md5=abc", None, r"ends in #md5=abc; expected #sha256="),
        (f"#sha256={'a' * 64}", "b" * 64, "the address and the argument sha256 differ"),
    ],
)
def test_what_is_no_checksum(ending: str, sha256: str | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        download_weights(f"http://127.0.0.1:1/x.pth{ending}", sha256=sha256, cache_dir=tmp_path)


def test_create_model_takes_addresses(
    address: str, server: Any, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert same(hypvl.create_model(TINY, address), model)
    with pytest.raises(
        ConfigError, match=r"127\.0\.0\.1:\d+/meru tiny\.pth: a checkpoint without a config in it"
    ):
        hypvl.create_model(address)
    file = io.BytesIO()
    text = LazyConfig.to_yaml(LazyConfig.from_dict({"model": TINY}, source="x"))
    torch.save({"format_version": 1, "model": model.state_dict(), "config": text}, file)
    server.state.update(content=file.getvalue(), etag='"two"')
    assert same(hypvl.create_model(url(server, "/own.pth")), model)
    kept = (tmp_path / "checkpoints" / "hypvl").glob("*.pth")
    assert {path.name.partition("-")[2] for path in kept} == {"meru_tiny.pth", "own.pth"}


def test_files_and_folders_on_the_disk(model: Any, published: bytes, tmp_path: Path) -> None:
    (tmp_path / "meru.pth").write_bytes(published)
    assert same(from_pretrained(tmp_path / "meru.pth", TINY), model)
    folder = save_pretrained(model, TINY, tmp_path / "m")
    assert same(from_pretrained(folder / "model.safetensors"), model)
    run = tmp_path / "run"
    run.mkdir()
    text = LazyConfig.to_yaml(LazyConfig.from_dict({"model": TINY}, source="x"))
    content = {"format_version": 1, "model": model.state_dict(), "iteration": 1, "config": text}
    torch.save(content, run / "checkpoint_final.pth")
    assert same(from_pretrained(run), model)
    for arguments, message in (
        ({"sha256": "0" * 64}, r"sha256: got '0+' for .*; only addresses have checksums"),
        ({"revision": "v1"}, "only the hub has revisions"),
        ({"config": TINY}, "config: got .*; only files lack one"),
        ({"cache_dir": tmp_path}, "cache_dir: .*; only files at addresses"),
    ):
        with pytest.raises(CheckpointError, match=message):
            from_pretrained(folder, **arguments)  # type: ignore[arg-type]  # of mixed types


def test_a_name_without_an_address_says_where_to_look() -> None:
    with pytest.raises(
        CheckpointError,
        match=r"meru_vit_l: hypvl knows no address of this file; the authors publish it at "
        r"https://github\.com/facebookresearch/meru \(licence: CC-BY-NC\)\. Download it, then "
        r'hypvl\.from_pretrained\(FILE, "meru_vit_l"\)',
    ):
        from_pretrained("meru_vit_l")
    with pytest.raises(ConfigError, match=r"siglip_vit_b: no such name in the zoo of hypvl \(closest: "):
        from_pretrained("siglip_vit_b")


def test_the_zoo_names_recipes_and_pages_only() -> None:
    entries = list_pretrained()
    assert {entry.recipe for entry in entries.values()} <= set(list_models())
    assert {entry.published_at for entry in entries.values()} == PAGES
    assert list(list_pretrained("atmg_*")) == ["atmg_vit_b", "atmg_vit_l", "atmg_vit_s"]


def test_a_zoo_of_ones_own(address: str, published: bytes, model: Any, tmp_path: Path) -> None:
    (tmp_path / "tiny.json").write_text(json.dumps({"model": TINY}))
    zoo = tmp_path / "zoo.json"
    fields = {
        "recipe": str(tmp_path / "tiny.json"),
        "url": address,
        "sha256": hashlib.sha256(published).hexdigest(),
        "licence": "MIT",
    }
    zoo.write_text(json.dumps({"ours": fields}))
    assert same(from_pretrained("ours", zoo=zoo, cache_dir=tmp_path / "cache"), model)
    assert list_pretrained(zoo=zoo)["ours"].licence == "MIT"
    zoo.write_text(json.dumps({"ours": {**fields, "sha256": "0" * 64}}))
    with pytest.raises(DownloadError, match="its SHA256 is"):
        from_pretrained("ours", zoo=zoo, cache_dir=tmp_path / "cache")
    for content, message in (
        ("[1]", "holds a list; expected an object"),
        ("{", "is not JSON"),
        ('{"a": {"url": "http://x/y"}}', "a is .*; expected an object with the key recipe"),
        (
            '{"a": {"recipe": "x", "path": "y"}}',
            "and of the keys licence, published_at, recipe, sha256, url only",
        ),
        (
            '{"a": {"recipe": "x", "url": "file:///etc/passwd"}}',
            r"a\.url is .*; expected http:// or https://",
        ),
        ('{"a": {"recipe": "x", "licence": 3}}', r"a\.licence is 3; expected a text or null"),
    ):
        zoo.write_text(content)
        with pytest.raises(ConfigError, match=message):
            from_pretrained("a", zoo=zoo)
