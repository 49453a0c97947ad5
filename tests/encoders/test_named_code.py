"""Folders of other libraries that name code of their own: it is refused, and never run."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hypvl.data.tokenizer_huggingface import HuggingFaceTokenizer, without_remote_code
from hypvl.data.tokenizer_open_clip import OpenClipTokenizer
from hypvl.encoders.open_clip import OpenClipTextEncoder
from hypvl.encoders.text_huggingface import HuggingFaceTextEncoder, load_config
from hypvl.encoders.text_sentence import SentenceTransformerTextEncoder
from hypvl.errors import ConfigError, UserError
from hypvl.models.foreign import load_foreign
from hypvl.negatives.backends.masked_lm import _load as load_masked

pytest.importorskip("transformers")
MAP = {name: f"code.{name}" for name in ("AutoConfig", "AutoModel", "AutoModelForMaskedLM", "AutoTokenizer")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model that only its own code can load; the code leaves a mark."""
    place = tmp_path / "folder"
    place.mkdir()
    marked = tmp_path / "executed"
    (place / "code.py").write_text(f"from pathlib import Path\nPath({str(marked)!r}).touch()\n")
    write(place / "config.json", {"model_type": "own", "auto_map": MAP})
    write(
        place / "tokenizer_config.json",
        {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["code.A", None]}},
    )
    write(place / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": "code.Module"}])
    write(place / "open_clip_config.json", {
        "model_cfg": {
            "embed_dim": 8,
            "vision_cfg": {"layers": 1, "width": 8, "head_width": 8, "patch_size": 8, "image_size": 8},
            "text_cfg": {"hf_model_name": str(place), "hf_tokenizer_name": str(place), "context_length": 4},
        },
        "preprocess_cfg": {},
    })  # fmt: skip
    return place


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


READERS: dict[str, Callable[[Path], Any]] = {
    "config": lambda folder: load_config(str(folder)),
    "text": lambda folder: HuggingFaceTextEncoder(str(folder)),
    "tokenizer": lambda folder: HuggingFaceTokenizer(str(folder)),
    "foreign": lambda folder: load_foreign(f"hf:{folder}"),
    "sentence": lambda folder: SentenceTransformerTextEncoder(str(folder)),
    "masked": lambda folder: load_masked(str(folder), "cpu"),
    "open_clip": lambda folder: OpenClipTextEncoder(f"local-dir:{folder}"),
    "open_clip tokenizer": lambda folder: OpenClipTokenizer(
        f"local-dir:{folder}", context_length=4, vocab_size=9
    )(["a"]),
}


@pytest.mark.parametrize("reader", READERS)
def test_code_of_a_folder_is_not_run(reader: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # a question whose answer would be yes
    if reader == "sentence":
        pytest.importorskip("sentence_transformers")
    with pytest.raises(UserError):
        READERS[reader](folder)
    assert not (folder.parent / "executed").exists()


@pytest.mark.parametrize("name", ["_attn_implementation", "attn_implementation", "experts_implementation"])
def test_kernels_of_the_hub_are_refused(tmp_path: Path, name: str) -> None:
    """transformers downloads and runs them, where the package kernels is installed."""
    write(tmp_path / "config.json", {"model_type": "chinese_clip", name: "someone/kernel"})
    with pytest.raises(
        ConfigError, match=r"names the code 'someone/kernel' as (attn|experts)_implementation"
    ):
        load_config(str(tmp_path))


def test_kernels_of_a_part_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    write(tmp_path / "config.json", {"model_type": "chinese_clip"})
    settings = transformers.AutoConfig.from_pretrained(tmp_path)
    settings.text_config._attn_implementation_internal = (
        "someone/kernel"  # as some versions take it from the file
    )
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda *_, **__: settings)
    with pytest.raises(ConfigError, match="names the code 'someone/kernel'"):
        load_config(str(tmp_path))


def test_nothing_is_left_changed() -> None:
    from transformers import dynamic_module_utils

    before = dynamic_module_utils.TIME_OUT_REMOTE_CODE
    with contextlib.suppress(ZeroDivisionError), without_remote_code():
        assert dynamic_module_utils.TIME_OUT_REMOTE_CODE == 0
        _ = 1 / 0
    assert before == dynamic_module_utils.TIME_OUT_REMOTE_CODE > 0
