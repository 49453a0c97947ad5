import torch

from hypvl.encoders.adapters.nice import Nice, at_entry


def test_by_hand_with_constant_nets() -> None:
    block = Nice(5)
    with torch.no_grad():
        for net, bias in ((block.F, 2.0), (block.G, -1.0)):
            for parameter in net.parameters():
                parameter.zero_()
            net.linear2.bias.fill_(bias)
        block.G.linear1.weight.fill_(1.0)  # G(a') = relu(sum of a') - 1 in every channel
        block.G.linear2.weight.fill_(1.0)
    x = torch.tensor([[1.0, 3.0, 10.0, 20.0, 30.0]])
    # a' = a + 2; the middle of G is 2 // 2 = 1 wide: relu(3 + 5) = 8, minus 1.
    torch.testing.assert_close(block(x), torch.tensor([[3.0, 5.0, 17.0, 27.0, 37.0]]))


def test_the_inverse() -> None:
    torch.manual_seed(0)
    block = Nice(12).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_()
    x = torch.randn(2, 3, 12, dtype=torch.float64)
    assert (block(x) - x).abs().max() > 0.1
    torch.testing.assert_close(block.inverse(block(x)), x)


def test_tokens_are_found_among_keywords_too() -> None:
    block, x = Nice(4), torch.randn(1, 2, 4)
    assert torch.equal(at_entry(block, block, (x, 7), {})[0][0], block(x))
    args, kwargs = at_entry(block, block, (), {"hidden_states": x, "other": 7})
    assert args == () and torch.equal(kwargs["hidden_states"], block(x)) and kwargs["other"] == 7
