"""Tiny models of other libraries with random weights, in folders as those libraries write them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

LENGTH = 16
TEXTS = ["a red photo", "Red green, " * 30, "a", "green!"]
_LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]


def photo(width: int = 71, height: int = 50) -> Image.Image:
    """An image that is not square, with smooth and noisy parts."""
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    noise[:, : width // 2] = np.linspace(0, 255, height, dtype=np.uint8)[:, None, None]
    return Image.fromarray(noise)


def as_tensor(image: Image.Image) -> Tensor:
    """uint8 (3, H, W), as readers give it."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def perturb(model: nn.Module) -> nn.Module:
    """Larger weights than at the start, so that every part matters; in evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def clip_tokenizer(folder: Path) -> int:
    """CLIP's kind of tokenizer with few words; returns the number of ids."""
    from transformers import CLIPTokenizer

    tokens = [*_LETTERS, *(f"{letter}</w>" for letter in _LETTERS), "re", "red</w>"]
    tokens += ["!</w>", ",</w>", "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[("r", "e"), ("re", "d</w>")], model_max_length=LENGTH)
    tokenizer.save_pretrained(folder)
    return len(vocabulary)


def bert_tokenizer(folder: Path) -> int:
    """BERT's kind of tokenizer; returns the number of ids."""
    from transformers import BertTokenizer

    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "a",
        "red",
        "green",
        "photo",
        "!",
        ",",
        *_LETTERS[1:],
    ]
    BertTokenizer(vocab={word: index for index, word in enumerate(words)}).save_pretrained(folder)
    return len(words)


def siglip_tokenizer(folder: Path) -> int:
    """SigLIP's kind of tokenizer, by sentencepiece; returns the number of ids."""
    import sentencepiece
    from transformers import SiglipTokenizer

    corpus = ["a red photo", "a green photo", "red green blue", "the photo of a cat"] * 20
    prefix = folder / "spiece"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_prefix=str(prefix), vocab_size=30, hard_vocab_limit=False,
        bos_id=-1, eos_id=1, unk_id=2, pad_id=0, minloglevel=2,
    )  # fmt: skip
    tokenizer = SiglipTokenizer(f"{prefix}.model", model_max_length=LENGTH)
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def clip(folder: Path) -> Any:
    """A CLIPModel whose images are resized to 36 pixels and cropped to 32."""
    from transformers import CLIPConfig, CLIPModel

    return _clip(folder, CLIPConfig, CLIPModel)


def metaclip2(folder: Path) -> Any:
    """A MetaClip2Model, likewise."""
    from transformers import MetaClip2Config, MetaClip2Model

    return _clip(folder, MetaClip2Config, MetaClip2Model)


def _clip(folder: Path, make_config: Any, kind: Any) -> Any:
    from transformers import CLIPImageProcessor

    folder.mkdir(parents=True)
    count = clip_tokenizer(folder)
    CLIPImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}).save_pretrained(
        folder
    )
    text = {
        "vocab_size": count,
        "bos_token_id": count - 2,
        "eos_token_id": count - 1,
        "pad_token_id": count - 1,
    }
    config = make_config(
        text_config={**_half(24), **text, "max_position_embeddings": LENGTH, "projection_dim": 20},
        vision_config={**_half(32), **_IMAGES, "projection_dim": 20},
        projection_dim=20,
    )
    return _saved(kind, config, folder)


def siglip2_tokenizer(folder: Path) -> int:
    """SigLIP 2's kind of tokenizer, in lower case, filled with 0; returns the number of ids."""
    from transformers import Siglip2Tokenizer

    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\u2581", *_LETTERS, "re", "red"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Siglip2Tokenizer(vocab=vocabulary, merges=[("r", "e"), ("re", "d")], model_max_length=LENGTH)
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def siglip(folder: Path) -> Any:
    """A SiglipModel, whose images are squeezed by bilinear interpolation and whose texts fill their rows."""
    return _siglip(folder, siglip_tokenizer, pad=1)


def siglip2(folder: Path) -> Any:
    """A SigLIP 2 of fixed size, which differs in its tokenizer."""
    return _siglip(folder, siglip2_tokenizer, pad=0)


def _siglip(folder: Path, make_tokenizer: Callable[[Path], int], *, pad: int) -> Any:
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    folder.mkdir(parents=True)
    count = make_tokenizer(folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}, resample=2).save_pretrained(folder)
    text = {
        "vocab_size": count,
        "max_position_embeddings": LENGTH,
        "projection_size": 32,
        "pad_token_id": pad,
    }
    config = SiglipConfig(text_config={**_half(24), **text}, vision_config={**_half(32), **_IMAGES})
    return _saved(SiglipModel, config, folder)


def blip(folder: Path) -> Any:
    """A BlipForImageTextRetrieval."""
    from transformers import BlipConfig, BlipForImageTextRetrieval, BlipImageProcessor

    folder.mkdir(parents=True)
    count = bert_tokenizer(folder)
    BlipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    text = {
        "vocab_size": count,
        "max_position_embeddings": LENGTH,
        "encoder_hidden_size": 32,
        "pad_token_id": 0,
    }
    config = BlipConfig(
        text_config={**_half(24), **text}, vision_config={**_half(32), **_IMAGES}, image_text_hidden_size=20
    )
    return _saved(BlipForImageTextRetrieval, config, folder)


def blip2(folder: Path) -> Any:
    """A Blip2ForImageTextRetrieval of 3 query tokens."""
    from transformers import Blip2Config, Blip2ForImageTextRetrieval, BlipImageProcessor

    folder.mkdir(parents=True)
    count = bert_tokenizer(folder)
    BlipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    former = {
        "vocab_size": count,
        "max_position_embeddings": LENGTH,
        "encoder_hidden_size": 32,
        "use_qformer_text_input": True,
    }
    config = Blip2Config(
        vision_config={**_half(32), **_IMAGES}, qformer_config={**_half(24), **former}, num_query_tokens=3,
        text_config={"model_type": "opt", "hidden_size": 16, "num_hidden_layers": 1, "vocab_size": 8},
        image_text_hidden_size=20,
    )  # fmt: skip
    return _saved(Blip2ForImageTextRetrieval, config, folder)


_IMAGES = {"image_size": 32, "patch_size": 8}


def _half(width: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }


def _saved(kind: Any, config: Any, folder: Path) -> Any:
    torch.manual_seed(0)
    model = perturb(kind(config))
    model.save_pretrained(folder)
    return model


def change_json(file: Path, **values: Any) -> None:
    """Change top-level values of a JSON file."""
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, **values}))
