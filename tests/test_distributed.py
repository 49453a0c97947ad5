import torch

from hypvl import distributed
from tests.ranks import run_ranks


def collectives() -> dict[str, object]:
    rank = distributed.rank()
    x = torch.full((2, 3), float(rank + 1), requires_grad=True)
    gathered = distributed.gather(x)
    weights = torch.arange(4.0).unsqueeze(1) * (rank + 1)  # each rank weighs every row in its own way
    (gathered * weights).sum().backward()
    counts = distributed.row_counts(2 * rank)  # none here, two there
    few = torch.full((2 * rank, 3), 5.0, requires_grad=True)
    uneven = distributed.gather_rows(few, counts)
    (uneven * (rank + 1)).sum().backward()
    statistics = distributed.batch_statistics(torch.arange(2.0 * rank)[:, None])
    z = x.detach().clone().requires_grad_()
    compiled = torch.compile(lambda rows: (distributed.gather(2 * rows) * weights).sum(), backend="eager")
    compiled(z).backward()
    return {
        "gathered": gathered.detach(),
        "grad": x.grad,
        "uneven": (counts, uneven.detach(), few.grad),
        "none": distributed.gather_rows(few[:0], [0, 0]).shape,
        "statistics": statistics,
        "compiled grad": z.grad,
        "mean": distributed.all_reduce_mean(torch.tensor(float(rank))),
        "sum": distributed.all_reduce_sum(torch.tensor(float(rank))),
        "objects": distributed.gather_objects({"rank": rank}),
        "broadcast": distributed.broadcast_object(f"from {rank}"),
        "size": distributed.world_size(),
        "device": str(distributed.device()),
    }


def test_collectives_on_two_processes() -> None:
    first, second = run_ranks(2, collectives)
    expected = torch.tensor([1.0, 1.0, 2.0, 2.0]).unsqueeze(1).expand(4, 3)
    for rank, result in enumerate((first, second)):
        assert torch.equal(result["gathered"], expected)
        # the sum over ranks of each rank's weight for our rows: (1 + 2) * row
        rows = torch.arange(4.0)[2 * rank : 2 * rank + 2].unsqueeze(1)
        assert torch.equal(result["grad"], 3 * rows.expand(2, 3))
        assert torch.equal(result["compiled grad"], 6 * rows.expand(2, 3))
        counts, uneven, grad = result["uneven"]
        assert counts == [0, 2] and torch.equal(uneven, torch.full((2, 3), 5.0))
        assert torch.equal(grad, torch.full((2 * rank, 3), 3.0)) and result["none"] == (0, 3)
        assert [float(x) for x in result["statistics"]] == [0.5, 0.25, 2.0]
        assert result["mean"].item() == 0.5
        assert result["sum"].item() == 1.0
        assert result["objects"] == [{"rank": 0}, {"rank": 1}]
        assert result["broadcast"] == "from 0"
        assert (result["size"], result["device"]) == (2, "cpu")


def test_means_and_sums_have_no_gradient_in_one_process_either() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    for reduce in (distributed.all_reduce_mean, distributed.all_reduce_sum):
        assert reduce(x).tolist() == [1.0, 2.0] and not reduce(x).requires_grad
