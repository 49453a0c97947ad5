import torch
from torch import nn

from hypvl import distributed
from hypvl.training.accumulation import GradientAverage
from tests.ranks import run_ranks


def averaged() -> dict[str, torch.Tensor | None]:
    """Gradients of four parameters: on both ranks, on rank 1 only, on none, and of a frozen one."""
    rank = float(distributed.rank())
    parameters = {
        "both": nn.Parameter(torch.zeros(2, 3).to(torch.float64)),
        "one": nn.Parameter(torch.zeros(4)),
        "none": nn.Parameter(torch.zeros(5)),
        "frozen": nn.Parameter(torch.zeros(()), requires_grad=False),
        "scalar": nn.Parameter(torch.zeros(())),
    }
    parameters["both"].grad = torch.full((2, 3), 1 + 2 * rank, dtype=torch.float64)
    if rank == 1:
        parameters["one"].grad = torch.arange(4.0)
    parameters["scalar"].grad = torch.tensor(-3 * rank)
    average = GradientAverage()
    average(parameters.values())
    average(parameters.values())  # a mean of equal numbers is that number
    return {name: parameter.grad for name, parameter in parameters.items()}


def test_the_mean_over_ranks_where_a_rank_has_a_gradient() -> None:
    for result in run_ranks(2, averaged):
        torch.testing.assert_close(result["both"], torch.full((2, 3), 2.0, dtype=torch.float64))
        torch.testing.assert_close(result["one"], torch.tensor([0.0, 0.5, 1.0, 1.5]))  # 0 on rank 0
        assert result["scalar"].item() == -1.5
        assert result["none"] is None and result["frozen"] is None


def test_one_process_changes_nothing() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([1.0, 2.0])
    GradientAverage(wire=torch.float16)([parameter, nn.Parameter(torch.zeros(1))])
    assert parameter.grad.tolist() == [1.0, 2.0]


def messages() -> dict[str, object]:
    """Many tensors of several dtypes and layouts, in messages of at most 100 bytes."""
    rank = distributed.rank()
    torch.manual_seed(rank)
    tensors = [torch.randn(n) for n in (1, 3, 40, 2)] + [
        torch.randn(2, 3, 2, 2).to(memory_format=torch.channels_last)
    ]
    tensors += [torch.randn(3, dtype=torch.float64), torch.tensor(rank + 5), torch.tensor([rank == 0])]
    sent = [x.clone() for x in tensors]
    distributed.broadcast_(sent)
    means = [x.clone() for x in tensors[:6]]
    distributed.all_reduce_mean_(means, bucket_bytes=100)
    short = [x.clone() for x in tensors[:6]]
    distributed.all_reduce_mean_(short, wire=torch.bfloat16, bucket_bytes=100)
    flags = distributed.any_rank([rank == 0, rank == 1, False], group=distributed.host_group())
    return {"given": tensors, "sent": sent, "means": means, "short": short, "flags": flags}


def test_collectives_in_buckets() -> None:
    first, second = run_ranks(2, messages)
    for result in (first, second):
        assert result["flags"] == [True, True, False]
        for x, given in zip(result["sent"], first["given"], strict=True):
            assert torch.equal(x, given)
        for x, short, a, b in zip(
            result["means"], result["short"], first["given"], second["given"], strict=False
        ):
            torch.testing.assert_close(x, (a + b) / 2)
            assert (x.stride(), x.dtype, short.dtype) == (a.stride(), a.dtype, a.dtype)
            torch.testing.assert_close(short, x, rtol=2e-2, atol=2e-2)  # bf16: 8 bits
