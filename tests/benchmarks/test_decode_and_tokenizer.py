"""The loader's and the tokenizer's benchmarks at a tiny size: both sides give the same."""

import io
import json
from collections import Counter

import pytest
from PIL import Image

from benchmarks import decode, tokenizer


def test_loader(capsys: pytest.CaptureFixture[str]) -> None:
    decode.main(["--images", "6", "--repeats", "1"])
    result = json.loads(capsys.readouterr().out)
    assert result["equal_shapes"] and result["images"] == 6
    assert result["throughput_ratio"] > 0 and result["transform_ratio"] > 0


def test_images_are_what_the_claim_says() -> None:
    first, second = decode.jpeg_images(2, 400, 300)
    with Image.open(io.BytesIO(first)) as image:
        assert image.format == "JPEG" and image.size == (400, 300) and image.mode == "RGB"
    assert first != second and first == decode.jpeg_images(1, 400, 300)[0]


def test_tokenizer(capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer.main(["--captions", "60", "--words", "50", "--repeats", "1"])
    result = json.loads(capsys.readouterr().out)
    assert result["equal_ids"] and result["distinct_captions"] == 60 and result["distinct_words"] == 50
    assert result["throughput_ratio"] > 0 and result["start_ratio"] > 0


def test_corpus_is_zipf_like_and_large_enough() -> None:
    texts = tokenizer.corpus(10_000, 10_000)
    words = Counter(word for text in texts for word in text.split())
    counts = [count for _, count in words.most_common(4)]
    assert len(set(texts)) == 10_000 and len(words) == 10_000
    assert counts[0] > 1.7 * counts[1] > 3 * counts[3]  # 1, 1/2, 1/3, 1/4
