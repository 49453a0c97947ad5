"""Encoding once in batches, and searching in chunks."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hypvl.data.tokenizer import Tokenizer
from hypvl.data.transforms import Squeeze
from hypvl.datasets.images import Images
from hypvl.embedding.encode import CachedEncoder, Encoding, text_digests
from hypvl.embedding.protocol import evaluating
from hypvl.embedding.search import search
from hypvl.errors import DataError, UserError
from tests.embedding.encoders import PLAIN, encode_images, encode_texts
from tests.evaluation.fakes import BLUE, GREEN, RED, FakeModel, FakeTokenizer, broken, image


def test_images_are_encoded_in_batches_and_in_order(tmp_path: Path) -> None:
    colors = (RED, GREEN, BLUE, RED, GREEN)
    images = Images.from_files([image(tmp_path / f"{i}.png", color) for i, color in enumerate(colors)])
    model = FakeModel()
    encoded = encode_images(model, images, transform=Squeeze(8), encoding=PLAIN)
    expected = torch.tensor(colors) / 255.0
    torch.testing.assert_close(encoded.embeddings, expected.float(), rtol=0, atol=1e-6)
    assert model.image_batches == [(2, 3, 8, 8), (2, 3, 8, 8), (1, 3, 8, 8)]
    assert encoded.indices.tolist() == [0, 1, 2, 3, 4] and encoded.bad == []


def test_broken_images_leave_gaps(tmp_path: Path) -> None:
    paths = [broken(tmp_path / "0.jpg"), image(tmp_path / "1.png", RED), tmp_path / "2.png",
             image(tmp_path / "3.png", BLUE)]  # fmt: skip
    half = Encoding(batch_size=2, num_workers=0, max_bad_fraction=0.5)
    encoded = encode_images(FakeModel(), Images.from_files(paths), transform=Squeeze(8), encoding=half)
    assert encoded.indices.tolist() == [1, 3]
    assert encoded.embeddings.argmax(dim=1).tolist() == [0, 2]
    assert [index for index, _ in encoded.bad] == [0, 2]
    assert "0.jpg" in encoded.bad[0][1] and "No such file" in encoded.bad[1][1]


def test_sets_without_a_readable_image_are_errors(tmp_path: Path) -> None:
    lenient = Encoding(num_workers=0, max_bad_fraction=1.0)
    with pytest.raises(DataError, match="its only image cannot be read"):
        encode_images(
            FakeModel(),
            Images.from_files([broken(tmp_path / "a.jpg")]),
            transform=Squeeze(8),
            encoding=lenient,
        )
    with pytest.raises(DataError, match="holds no images"):
        encode_images(FakeModel(), Images.from_files([]), transform=Squeeze(8), encoding=lenient)
    with pytest.raises(DataError, match="holds no texts"):
        encode_texts(FakeModel(), [], tokenizer=FakeTokenizer(), encoding=PLAIN)


def test_texts_are_encoded_in_batches() -> None:
    model = FakeModel()
    features = encode_texts(
        model, ["red", "a green thing", "blue", "red and blue"], tokenizer=FakeTokenizer(), encoding=PLAIN
    )
    assert features.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1]]
    assert model.text_batches == [2, 2]


def test_half_precision_outputs_become_fp32_and_fp64_stays() -> None:
    for given, kept in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        model = FakeModel()
        model.table.data = model.table.data.to(given)
        texts = encode_texts(model, ["red"], tokenizer=FakeTokenizer(), encoding=PLAIN)
        assert texts.dtype == kept


def test_autocast_is_on_when_asked_for() -> None:
    class Watching(FakeModel):
        seen: list[bool] = []  # noqa: RUF012

        def encode_text(self, tokens: Tensor, stage: str = "embeddings") -> Tensor:
            self.seen.append(torch.is_autocast_enabled("cpu"))
            return super().encode_text(tokens, stage)

    model = Watching()
    for amp in ("bf16", False):
        encode_texts(
            model,
            ["red"],
            tokenizer=FakeTokenizer(),
            encoding=Encoding(num_workers=0, amp=amp),  # type: ignore[arg-type]
        )
    assert model.seen == [True, False]


def test_training_mode_is_restored_after_an_error() -> None:
    model = FakeModel()
    with pytest.raises(KeyError), evaluating(model):
        assert not model.training
        raise KeyError
    assert model.training and not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(("query_chunk", "key_chunk"), [(1, 1), (3, 4), (7, 100), (100, 7), (100, 100)])
@pytest.mark.parametrize("k", [1, 5, 23, 50])
def test_chunks_give_what_the_whole_matrix_gives(query_chunk: int, key_chunk: int, k: int) -> None:
    generator = torch.Generator().manual_seed(1)
    # Small integers: sums are exact in any order, and ties are everywhere.
    queries = torch.randint(-2, 3, (11, 3), generator=generator).double()
    keys = torch.randint(-2, 3, (23, 3), generator=generator).double()
    values, columns = search(
        FakeModel(), queries, keys, k=k, query_modality="text", key_modality="image",
        query_chunk=query_chunk, key_chunk=key_chunk,
    )  # fmt: skip
    whole = (queries @ keys.T).tolist()
    expected = [sorted(range(23), key=lambda j, row=row: (-row[j], j))[:k] for row in whole]
    assert columns.tolist() == expected
    assert values.tolist() == [[row[j] for j in best] for row, best in zip(whole, expected, strict=True)]


def test_no_block_of_scores_is_larger_than_asked_for() -> None:
    model = FakeModel()
    search(
        model, torch.zeros(10, 3), torch.zeros(33, 3), k=2, query_modality="text", key_modality="image",
        query_chunk=4, key_chunk=8,
    )  # fmt: skip
    assert {rows for rows, _ in model.score_blocks} <= {4, 2}
    assert max(columns for _, columns in model.score_blocks) == 8
    assert sum(rows * columns for rows, columns in model.score_blocks) == 10 * 33


def test_memory_does_not_grow_with_queries_times_gallery() -> None:
    largest = 0

    class Counting(FakeModel):
        def scores(self, query: Tensor, key: Tensor, *, query_modality: str, key_modality: str) -> Tensor:
            nonlocal largest
            block = super().scores(query, key, query_modality=query_modality, key_modality=key_modality)
            largest = max(largest, block.numel())
            return block

    rows = torch.rand(6000, 3)
    values, columns = search(
        Counting(), rows, rows, k=3, query_modality="text", key_modality="image",
        query_chunk=256, key_chunk=1024,
    )  # fmt: skip
    assert largest == 256 * 1024  # of 36 million scores
    assert values.shape == columns.shape == (6000, 3)
    assert values.untyped_storage().nbytes() == 6000 * 3 * 4  # no view that keeps a block alive


def test_search_refuses_nan_and_nothing() -> None:
    ways = {"query_modality": "text", "key_modality": "image"}
    with pytest.raises(UserError, match=r"2 of 4 in a block are NaN"):
        search(
            FakeModel(),
            torch.tensor([[torch.nan] * 3, [1.0] * 3]),
            torch.ones(2, 3),
            k=1,
            **ways,  # type: ignore[arg-type]
        )
    with pytest.raises(ValueError, match="keys: got none"):
        search(FakeModel(), torch.ones(1, 3), torch.ones(0, 3), k=1, **ways)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="queries: got none"):
        search(FakeModel(), torch.ones(0, 3), torch.ones(1, 3), k=1, **ways)  # type: ignore[arg-type]


@pytest.mark.parametrize(("processors", "workers"), [(1, 1), (2, 2), (64, 4)])
def test_no_more_workers_than_processors_by_default(
    processors: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)), raising=False)
    assert Encoding().workers == workers
    assert Encoding(num_workers=7).workers == 7


def test_encoding_refuses_settings_out_of_range() -> None:
    for settings in ({"batch_size": 0}, {"num_workers": -1}, {"max_bad_fraction": 2.0}):
        with pytest.raises(ValueError, match=f"{next(iter(settings))}: got"):
            Encoding(**settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="amp: got 'half'"):
        Encoding(amp="half")  # type: ignore[arg-type]


class WithTokenizer(FakeModel):
    """Has a tokenizer of its own, which pads with 9; the table's last row is that of unknown words."""

    class Padding9(FakeTokenizer):
        pad_token = 9

        def __call__(self, texts: Sequence[str]) -> Tensor:
            tokens = super().__call__(texts)
            return torch.where(tokens == 0, 9, tokens)

    tokenizer = Padding9()

    def encode_text(self, tokens: Tensor, stage: str = "embeddings") -> Tensor:
        return super().encode_text(torch.where(tokens == 9, 0, tokens), stage)


def test_texts_go_through_the_tokenizer_of_the_model() -> None:
    model = WithTokenizer()
    encoder = CachedEncoder(model, encoding=PLAIN)
    assert encoder.tokenizer is model.tokenizer
    assert encoder.encode_texts(["red", "red and blue"]).tolist() == [[1, 0, 0], [1, 0, 1]]
    assert type(CachedEncoder(FakeModel(), encoding=PLAIN).tokenizer) is Tokenizer  # CLIP's


def test_the_digest_of_a_text_does_not_depend_on_its_padding() -> None:
    tokenizer = WithTokenizer.tokenizer
    alone, padded = text_digests(["red"], tokenizer), text_digests(["red", "red and blue"], tokenizer)
    assert alone[0] == padded[0] != padded[1]
