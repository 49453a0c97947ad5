"""The text encoder gives the numbers of Hugging Face's CLIPTextModel, whose names Hyper3-CLIP's files have."""

import pytest
import torch
from torch import Tensor

from hypvl.encoders.text import TextTransformer

transformers = pytest.importorskip("transformers")
WIDTH, LAYERS, VOCAB, LENGTH = 32, 2, 60, 12


def from_hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a CLIPTextModel, with or without the prefix of older versions, under our names."""
    state = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    ours = {
        "token_embed.weight": state["embeddings.token_embedding.weight"],
        "posit_embed": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
    }
    parts = {"attn.out_proj": "self_attn.out_proj", "ln_1": "layer_norm1", "ln_2": "layer_norm2",
             "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}  # fmt: skip
    for i in range(LAYERS):
        theirs, block = f"encoder.layers.{i}", f"resblocks.{i}"
        for kind in ("weight", "bias"):
            ours |= {f"{block}.{o}.{kind}": state[f"{theirs}.{t}.{kind}"] for o, t in parts.items()}
            joined = [state[f"{theirs}.self_attn.{letter}_proj.{kind}"] for letter in "qkv"]
            ours[f"{block}.attn.in_proj_{kind}"] = torch.cat(joined)
    return ours


@pytest.mark.parametrize(
    "end", [VOCAB - 1, 2]
)  # 2: as the config of OpenAI's files says, read at the largest id
def test_same_features(end: int) -> None:
    torch.manual_seed(0)
    config = transformers.CLIPTextConfig(
        vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=LAYERS,
        num_attention_heads=2, max_position_embeddings=LENGTH, hidden_act="quick_gelu", layer_norm_eps=1e-5,
        bos_token_id=VOCAB - 2, eos_token_id=end, pad_token_id=1,
    )  # fmt: skip
    theirs = transformers.CLIPTextModel(config).double().eval()
    for parameter in theirs.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)  # biases and gains, too
    ours = TextTransformer(
        f"L{LAYERS}_W{WIDTH}_A2", vocab_size=VOCAB, context_length=LENGTH, activation="quick_gelu"
    )
    ours.double().load_state_dict(from_hugging_face(theirs.state_dict()))
    tokens = torch.randint(3, VOCAB - 2, (5, LENGTH))
    tokens[:, 0] = VOCAB - 2
    for row, length in enumerate((3, 7, 12, 5, 12)):
        tokens[row, length - 1], tokens[row, length:] = VOCAB - 1, 0
    with torch.no_grad():
        expected = theirs(input_ids=tokens).pooler_output
        torch.testing.assert_close(ours(tokens), expected, rtol=0, atol=1e-10)
