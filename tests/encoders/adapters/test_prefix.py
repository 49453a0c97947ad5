import torch

from hypvl.encoders.adapters.prefix import LayerPrefix, Prefix, prefix_mask, prepend


def test_layers_keys_and_values_and_heads_are_in_this_order() -> None:
    torch.manual_seed(0)
    prefix = Prefix(8, layers=3, attended=8, length=2, inner=5)
    flat = prefix.mlp2(torch.tanh(prefix.mlp1(prefix.embedding)))  # (2, 48)
    ordered = flat.view(2, 3, 2, 4, 2)  # position, layer, keys and values, head, channel
    for layer in range(3):
        keys, values, factor = LayerPrefix(prefix, layer, 4, None).take()
        torch.testing.assert_close(keys, ordered[:, layer, 0].transpose(0, 1))
        torch.testing.assert_close(values, ordered[:, layer, 1].transpose(0, 1))
        assert factor is None


def test_prepended_rows_are_scaled_row_by_row() -> None:
    tokens = torch.zeros(2, 1, 3, 1)
    factor = torch.tensor([1.0, 10.0]).view(2, 1, 1, 1)
    joined = prepend(torch.tensor([[[2.0], [3.0]]]), tokens, factor)  # one head, two positions
    assert joined[:, 0, :, 0].tolist() == [[2, 3, 0, 0, 0], [20, 30, 0, 0, 0]]


CPU = torch.device("cpu")


def test_masks_show_the_prefix_to_all() -> None:
    causal = prefix_mask(None, causal=True, queries=2, keys=3, prefix=1, device=CPU)
    assert causal is not None
    assert causal.tolist() == [[True, True, True, False], [True, True, True, True]]  # one key is of the past
    assert prefix_mask(None, causal=False, queries=2, keys=2, prefix=1, device=CPU) is None
    given = torch.tensor([[[[0.0, -9.0]]]])
    padded = prefix_mask(given, causal=True, queries=1, keys=2, prefix=2, device=CPU)
    assert padded is not None
    assert padded.tolist() == [[[[0.0, 0.0, 0.0, -9.0]]]]
    boolean = prefix_mask(given == 0, causal=True, queries=1, keys=2, prefix=1, device=CPU)
    assert boolean is not None
    assert boolean.tolist() == [[[[True, True, False]]]]
