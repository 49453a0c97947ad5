import pytest
import torch
from torch import nn

from hypvl.errors import ConfigError
from hypvl.losses.base import IMAGE, LossTerm, Objective, PairContext, View
from hypvl.losses.proto_clip import ProtoCLIP
from hypvl.losses.seed import SEED
from hypvl.training.step import Learner, lookup
from tests.training.tiny import tiny_batch, tiny_learner, tiny_model


class Mean(LossTerm):
    def __init__(self, *views: View) -> None:
        super().__init__()
        self.needs = frozenset(views)

    def forward(self, ctx: PairContext) -> torch.Tensor:
        return torch.stack([ctx.features(v).mean() for v in sorted(self.needs, key=str)]).mean()


def test_each_view_is_encoded_once_whatever_asks_for_it() -> None:
    model = tiny_model("clip")
    calls = []
    model.visual.register_forward_hook(lambda *_: calls.append(1))
    Learner(model, Objective({"a": Mean(IMAGE), "b": Mean(IMAGE)}))(tiny_batch())
    assert len(calls) == 1


def test_a_view_without_gradient_gives_none_to_its_encoder() -> None:
    still = View("image", "image", grad=False)
    learner = Learner(tiny_model("clip"), Objective({"a": Mean(still, View("text", "text"))}))
    output, _ = learner(tiny_batch())
    output.total.backward()
    assert all(p.grad is None for p in learner.model.visual.parameters())
    assert learner.model.textual.token_embed.weight.grad is not None


def test_views_have_one_order_also_where_only_the_gradient_differs() -> None:
    """Ranks have other hash seeds: an order of a set would differ between them."""
    still = View("image", "image", grad=False)
    for views in ((still, IMAGE), (IMAGE, still)):
        assert Learner(tiny_model("clip"), Objective({"a": Mean(*views)})).views == (still, IMAGE)


def test_an_encoder_that_is_not_here_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"no encoder 'teacher'; expected one of student, or add it to train\.teachers"
    ):
        Learner(tiny_model("clip"), Objective({"a": Mean(View("image", "image", "teacher"))}))


def test_a_batch_entry_that_is_not_there_is_named() -> None:
    learner = Learner(tiny_model("clip"), Objective({"a": Mean(View("image", "box_image"))}))
    said = r"needs 'box_image', but the batch has only image, text, position, bad; .*\+\+dataset.mapper.boxes=true"
    with pytest.raises(ConfigError, match=said):
        learner(tiny_batch())


def test_lookup_goes_into_lists_and_dicts() -> None:
    batch = {"crops": [torch.zeros(1), torch.ones(1)], "by": {"160": torch.full((1,), 2.0)}}
    assert lookup(batch, "crops.1").item() == 1.0
    assert lookup(batch, "by.160").item() == 2.0
    with pytest.raises(ConfigError, match=r"needs 'crops\.2'.* choose data that gives it, or another"):
        lookup(batch, "crops.2")


def test_constrain_clamps_scales_and_curvature() -> None:
    learner = tiny_learner("meru")
    model = learner.model
    with torch.no_grad():
        for parameter in (model.scorer.log_scale, model.geometry.log_curv, model.visual_head.log_scale):
            parameter.fill_(50.0)
    learner.constrain_()
    assert model.scorer.log_scale.item() == pytest.approx(4.6052)
    assert model.geometry.log_curv.item() == pytest.approx(2.302585, rel=1e-6)  # ten times its start
    assert model.visual_head.log_scale.item() == 0.0


class Bounded(nn.Module):
    """A parameter that is kept at or below 2."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(9.0))
        self.asked = 0

    @torch.no_grad()
    def constrain_(self) -> None:
        self.asked += 1
        self.gain.clamp_(max=2.0)


@pytest.mark.parametrize(
    "place",
    ["model.visual", "model.textual", "model.visual_head.projection", "model.scorer", "objective.terms.mean"],
)
def test_constrain_reaches_every_module_once(place: str) -> None:
    learner = Learner(tiny_model("clip"), Objective({"mean": Mean(IMAGE)}))
    learner.get_submodule(place).below = nn.Sequential(Bounded())
    bounded = learner.get_submodule(f"{place}.below.0")
    learner.constrain_()
    assert (bounded.gain.item(), bounded.asked) == (2.0, 1)


def test_stats_name_curvature_and_scale() -> None:
    stats = tiny_learner("meru").stats()
    assert stats["curv"] == pytest.approx(1.0)
    assert stats["logit_scale"] == pytest.approx(1 / 0.07, rel=1e-5)


def test_a_skipped_step_restores_the_buffers_on_the_device() -> None:
    """Where the host does not know: buffers changed in place and put anew, also of another shape."""

    class Counting(Mean):
        def __init__(self) -> None:
            super().__init__(IMAGE)
            self.register_buffer("total", torch.zeros(2))
            self.register_buffer("rows", torch.zeros(1))

        def update_(self, ctx: PairContext) -> None:
            self.total += 1
            self.rows = torch.arange(3.0)

    term = Counting()
    learner = Learner(tiny_model("clip"), Objective({"a": term}, warmup={"a": [1, 3]}))
    _, ctx = learner(tiny_batch())
    total = term.total
    learner.update_(ctx, stepped=torch.tensor(True))
    assert (learner.objective.steps.item(), total.tolist(), term.rows.tolist()) == (1, [1, 1], [0, 1, 2])
    term.rows = torch.full((1,), 5.0)
    learner.update_(ctx, stepped=torch.tensor(False))
    assert (learner.objective.steps.item(), total.tolist(), term.rows.tolist()) == (1, [1, 1], [5, 5, 5])
    assert term.total is total


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_a_skipped_step_keeps_the_rows_of_a_queue_that_it_would_overwrite(parts: int) -> None:
    """Only those are copied; five parts of four rows are more than the queue has."""
    term = SEED(student="image", teacher="text", dim=12, queue_size=16)
    term.queue.pointer.fill_(10)  # the rows go on at the beginning
    learner = Learner(tiny_model("clip"), Objective({"a": term}))
    contexts = [learner(tiny_batch(4, seed=i))[1] for i in range(parts)]
    kept = [change for change in learner.objective.changes(contexts) if change.name == "rows"]
    assert [len(change.rows) for change in kept if change.rows is not None] == [min(16, 4 * parts)]
    before = {name: value.clone() for name, value in term.state_dict().items()}
    learner.update_(*contexts, stepped=torch.tensor(False))
    torch.testing.assert_close(term.state_dict(), before, rtol=0, atol=0)
    learner.update_(*contexts, stepped=torch.tensor(True))
    other = SEED(student="image", teacher="text", dim=12, queue_size=16)
    other.queue.pointer.fill_(10)
    for ctx in contexts:
        other.update_(ctx)
    torch.testing.assert_close(term.state_dict(), other.state_dict(), rtol=0, atol=0)
    assert term.queue.pointer.item() == (10 + 4 * parts) % 16


def test_prototypes_of_an_episode_are_not_copied() -> None:
    term = ProtoCLIP(12, clusters=2, episode=8, hidden=4)
    names = {change.name for change in term.changes([])}
    assert names == {"running_mean", "running_var", "num_batches_tracked"}
