"""A model goes to a hub with its card and comes back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import constants

import hypvl
from hypvl.errors import DataError
from hypvl.io.http import RemoteError
from tests.fake_hub import FakeHub, serve
from tests.models.test_hub import TINY, TOKENS

RESULTS = {
    "format_version": 2,
    "subject": {"checkpoint_sha256": "a" * 64},
    "provenance": {"checkpoint": "a.pth"},
    "results": {
        "digits": {
            "status": "ok",
            "metrics": {"top1_accuracy": 61.25, "top1_accuracy_chance": 10.0},
            "intervals": {"top1_accuracy": [60.0, 62.5]},
            "meta": {"main_metric": "top1_accuracy"},
            "settings": {"_target_": "hypvl.evaluation.zero_shot.ZeroShotClassification"},
        },
        "pets": {"status": "missing", "metrics": {}},
    },
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    with serve() as (made, address):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield made


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "results.json"
    path.parent.mkdir()
    path.write_text(json.dumps(RESULTS))
    return path


def test_a_model_goes_to_the_hub_and_comes_back(hub: FakeHub, results: Path) -> None:
    torch.manual_seed(3)
    model = hypvl.create_model(TINY)
    address = hypvl.push_to_hub(
        model,
        TINY,
        repo_id="me/tiny",
        results=results,
        licence="mit",
        message="First",
        token="hf_" + "x" * 20,
    )
    assert "/me/tiny/commit/" in address and hub.commits == [("main", "First")]
    assert sorted(hub.files["me/tiny"]) == ["README.md", "config.json", "model.safetensors"]
    metadata = card_data(hub.files["me/tiny"]["README.md"].decode())
    assert metadata["license"] == "mit" and metadata["metrics"] == ["top1_accuracy"]
    loaded = hypvl.from_pretrained("me/tiny")
    with torch.no_grad():
        assert torch.equal(loaded.encode_text(TOKENS), model.encode_text(TOKENS))


def card_data(text: str) -> Any:
    start, block, rest = text.split("---\n", 2)
    assert start == "" and rest.startswith("\n# ")
    return yaml.safe_load(block)


def test_a_card_has_what_the_hub_reads_and_what_people_read(results: Path) -> None:
    text = hypvl.model_card("me/tiny", results=results.parent, licence="mit", tags=["hyperbolic"], datasets=["me/data"],
                            base_model="openai/clip", description="Trained on digits.")  # fmt: skip
    data = card_data(text)
    assert data["library_name"] == "hypvl" and data["pipeline_tag"] == "zero-shot-image-classification"
    assert data["tags"] == ["hypvl", "vision-language", "image-text", "hyperbolic"]
    assert (data["datasets"], data["base_model"]) == (["me/data"], "openai/clip")
    (measured,) = data["model-index"][0]["results"]
    assert measured["task"] == {"type": "zero-shot-classification"}
    assert measured["dataset"]["name"] == "digits"
    assert measured["metrics"] == [{"type": "top1_accuracy", "value": 61.25}]
    assert "| digits | top1_accuracy | 61.2 | 60.0 to 62.5 | 10.0 |" in text
    assert "Trained on digits." in text and 'create_model_and_transforms("hf-hub:me/tiny")' in text
    assert "pets" not in text  # no result


def test_a_card_of_several_checkpoints_is_refused(results: Path) -> None:
    other = {**RESULTS, "subject": {"checkpoint_sha256": "b" * 64}, "provenance": {"checkpoint": "b.pth"}}
    (results.parent / "results_1.json").write_text(json.dumps(other))
    with pytest.raises(DataError, match=r"results of 2 checkpoints .*name the results\.json of one"):
        hypvl.model_card("me/tiny", results=results.parent)


def test_a_refusal_of_the_hub_is_one_sentence(hub: FakeHub) -> None:
    hub.refuses = True
    with pytest.raises(RemoteError, match=r"me/tiny: the hub did not take the files \(.*401.*hf auth login"):
        hypvl.push_to_hub(hypvl.create_model(TINY), TINY, repo_id="me/tiny")
    with pytest.raises(ValueError, match="card: got one beside results or licence"):
        hypvl.push_to_hub(hypvl.create_model(TINY), TINY, repo_id="me/tiny", card="# x", licence="mit")


def test_a_card_lies_beside_the_weights(tmp_path: Path) -> None:
    folder = hypvl.save_pretrained(
        hypvl.create_model(TINY), TINY, tmp_path / "m", card=hypvl.model_card("me/x")
    )
    assert (folder / "README.md").read_text().startswith("---\nlibrary_name: hypvl\n")
