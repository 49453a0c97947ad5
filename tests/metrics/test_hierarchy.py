from random import Random

import pytest

from hypvl.metrics.hierarchy import NAMES, IsA, distances, metrics_to

#            thing
#      animal      plant
#    dog    cat     oak
#  poodle
TREE = IsA({
    "thing": [], "animal": ["thing"], "plant": ["thing"], "dog": ["animal"], "cat": ["animal"],
    "oak": ["plant"], "poodle": ["dog"],
})  # fmt: skip


def of_pair(graph: IsA, predicted: str, truth: str) -> dict[str, float]:
    return {name: values[0] for name, values in metrics_to(graph, truth, [predicted]).items()}


@pytest.mark.parametrize(("predicted", "truth", "tie", "lca", "jaccard", "precision", "recall"), [
    ("dog", "dog", 0, 1, 1.0, 1.0, 1.0),
    ("cat", "dog", 2, 2, 2 / 4, 2 / 3, 2 / 3),
    ("oak", "dog", 4, 3, 1 / 5, 1 / 3, 1 / 3),
    ("animal", "dog", 1, 1, 2 / 3, 1.0, 2 / 3),
    ("poodle", "dog", 1, 2, 3 / 4, 3 / 4, 1.0),
    ("poodle", "oak", 5, 4, 1 / 6, 1 / 4, 1 / 3),
])  # fmt: skip
def test_values_by_hand(
    predicted: str, truth: str, tie: float, lca: float, jaccard: float, precision: float, recall: float
) -> None:
    assert of_pair(TREE, predicted, truth) == pytest.approx({
        "tie": tie, "lca_error": lca, "jaccard": jaccard,
        "hierarchical_precision": precision, "hierarchical_recall": recall,
    })  # fmt: skip


def test_swapping_truth_and_prediction_swaps_precision_and_recall() -> None:
    for a in TREE.parents:
        for b in TREE.parents:
            one, other = of_pair(TREE, a, b), of_pair(TREE, b, a)
            assert one["hierarchical_precision"] == other["hierarchical_recall"]
            assert (one["tie"], one["jaccard"]) == (other["tie"], other["jaccard"])


def test_several_parents_take_the_shortest_way() -> None:
    graph = IsA({"shape": [], "circle": ["shape"], "red": ["shape"], "red circle": ["circle", "red"],
                 "red star": ["red"]})  # fmt: skip
    assert graph.ancestors("red circle") == {"shape", "circle", "red", "red circle"}
    assert of_pair(graph, "red star", "red circle")["tie"] == 2.0  # over red, not over the root


def test_predictions_do_not_depend_on_each_other() -> None:
    nodes = list(TREE.parents)
    result = metrics_to(TREE, "dog", nodes)
    for i, node in enumerate(nodes):
        assert {name: values[i] for name, values in result.items()} == of_pair(TREE, node, "dog")
    assert tuple(result) == NAMES


def test_dead_ends_are_pruned_and_detours_stay() -> None:
    """A random graph: the shortest ways between some nodes are those of the whole graph."""
    random = Random(0)
    parents = {"0": []} | {
        str(i): sorted({str(random.randrange(i)) for _ in range(1 + (i % 5 == 0))}) for i in range(1, 200)
    }
    graph = IsA(parents)
    nodes = [str(i) for i in random.sample(range(200), 20)]
    neighbours = graph.neighbours_between(nodes)
    assert len(neighbours) < 200 and set(nodes) <= set(neighbours)
    for node in nodes:
        whole, part = graph.distances(node), distances(neighbours, node)
        assert {other: part[other] for other in nodes} == {other: whole[other] for other in nodes}
        assert metrics_to(graph, node, nodes, neighbours=neighbours) == metrics_to(graph, node, nodes)
    # A tree keeps nothing but the ways themselves.
    assert set(TREE.neighbours_between(["cat", "poodle"])) == {"cat", "animal", "dog", "poodle"}
    assert set(TREE.neighbours_between(["cat"])) == {"cat"}


def test_a_long_chain_needs_no_deep_stack() -> None:
    chain = IsA({str(i): [str(i + 1)] if i < 5000 else [] for i in range(5001)})
    assert len(chain.ancestors("0")) == 5001


def test_bad_hierarchies_are_named() -> None:
    with pytest.raises(ValueError, match="'dog' has the parent 'animal', which is not a node"):
        IsA({"dog": ["animal"]})
    with pytest.raises(ValueError, match="is its own ancestor"):
        IsA({"a": ["b"], "b": ["c"], "c": ["a"]})
    with pytest.raises(ValueError, match="no path between 'a' and 'b'"):
        of_pair(IsA({"a": [], "b": []}), "a", "b")
