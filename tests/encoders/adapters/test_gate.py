import torch

from hypvl.encoders.adapters.gate import Gate, GroupedRows, PaddedRows, TokenRows

VALUES = torch.tensor([[1.0, 2.0, 6.0], [4.0, 8.0, 100.0]])
VALID = torch.tensor([[True, True, True], [True, True, False]])


def test_means_of_padded_rows() -> None:
    assert PaddedRows(VALID).mean(VALUES, masked=True).tolist() == [3.0, 6.0]
    torch.testing.assert_close(PaddedRows(VALID).mean(VALUES, masked=False), torch.tensor([3.0, 112 / 3]))
    assert PaddedRows().mean(VALUES[:1], masked=True).tolist() == [3.0]
    assert PaddedRows(VALID[1:]).mean(VALUES, masked=True).tolist() == [1.5, 6.0]  # one mask for all rows
    assert PaddedRows(~VALID[:1]).mean(VALUES, masked=True).tolist() == [0.0, 0.0]  # nothing but padding
    assert PaddedRows().spread(torch.tensor([2.0, 3.0])).shape == (2, 1, 1)


def test_means_of_groups() -> None:
    rows = GroupedRows(groups=((2, 1), (1, 3)), valid=torch.tensor([True, True, True, True, False]))
    values = torch.tensor([5.0, 7.0, 1.0, 2.0, 9.0])
    assert rows.mean(values, masked=True).tolist() == [5.0, 7.0, 1.5]
    assert rows.mean(values, masked=False).tolist() == [5.0, 7.0, 4.0]
    assert rows.spread(torch.tensor([1.0, 2.0, 3.0]))[:, 0].tolist() == [1.0, 2.0, 3.0, 3.0, 3.0]


def test_a_gate_is_a_mean_of_sigmoids() -> None:
    gate = Gate(2, tokens=TokenRows(PaddedRows(VALID[1:])), variant="masked", zero_bias=True)
    x = torch.tensor([[[0.0, 0.0], [1.0, 1.0], [9.0, 9.0]]])
    with torch.no_grad():
        gate.weight.fill_(1.0)
        expected = (0.5 + torch.sigmoid(torch.tensor(2.0))) / 2
        torch.testing.assert_close(gate(x), expected.view(1))
        torch.testing.assert_close(gate.factor(x), expected.view(1, 1, 1))
        gate.variant = "published"
        torch.testing.assert_close(gate(x), ((2 * expected + torch.sigmoid(torch.tensor(18.0))) / 3).view(1))
