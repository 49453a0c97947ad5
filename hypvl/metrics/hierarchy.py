"""Distance of a prediction from the truth in an is-a hierarchy: pure functions of a graph.

Source: HyCoCLIP (Pal et al. 2025, arXiv 2410.06912), section 4, after Kosmopoulos et al. 2015.
"""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

#: Names of the metrics of :func:`metrics_to`, in this order.
NAMES = ("tie", "lca_error", "jaccard", "hierarchical_precision", "hierarchical_recall")
#: Ancestors of all nodes together: a long chain has the square of its nodes.
MOST_ANCESTORS = 15_000_000


class IsA:
    """An is-a relation: each node with its parents; several parents and several roots are allowed.

    Args:
        parents: Node -> its parents; every parent is a node itself.

    Raises:
        ValueError: for a parent that is not a node, a circle, or far more ancestors than any hierarchy of words has.

    Example:
        >>> graph = IsA({"animal": [], "cat": ["animal"], "dog": ["animal"]})
        >>> sorted(graph.ancestors("cat"))
        ['animal', 'cat']
    """

    def __init__(self, parents: Mapping[str, Sequence[str]]) -> None:
        self.parents = {node: tuple(above) for node, above in parents.items()}
        for node, above in self.parents.items():
            if unknown := [p for p in above if p not in self.parents]:
                raise ValueError(f"parents: {node!r} has the parent {unknown[0]!r}, which is not a node.")
        self.neighbours: dict[str, set[str]] = {node: set(above) for node, above in self.parents.items()}
        for node, above in self.parents.items():
            for parent in above:
                self.neighbours[parent].add(node)
        self._ancestors: dict[str, frozenset[str]] = {}
        count = 0
        try:
            for node in TopologicalSorter(self.parents).static_order():  # parents come first
                above_parents = (self._ancestors[parent] for parent in self.parents[node])
                self._ancestors[node] = frozenset({node}.union(*above_parents))
                count += len(self._ancestors[node])
                if count > MOST_ANCESTORS:
                    raise ValueError(
                        f"parents: more than {MOST_ANCESTORS:,} ancestors of all nodes together; WordNet has a million."
                    )
        except CycleError as error:
            raise ValueError(
                f"parents: {error.args[1][0]!r} is its own ancestor; expected no circles."
            ) from error

    def __contains__(self, node: object) -> bool:
        return node in self.parents

    def ancestors(self, node: str) -> frozenset[str]:
        """The node and all nodes above it. Raises KeyError for an unknown node."""
        return self._ancestors[node]

    def distances(self, node: str) -> dict[str, int]:
        """Edges of the shortest undirected path from a node to every node that can be reached."""
        return distances(self.neighbours, node)

    def neighbours_between(self, nodes: Collection[str]) -> dict[str, set[str]]:
        """The part of ``neighbours`` that shortest paths between these nodes can use."""
        neighbours = {node: set(others) for node, others in self.neighbours.items()}
        wanted = frozenset(nodes)
        dangling = deque(
            node for node, others in neighbours.items() if len(others) < 2 and node not in wanted
        )
        while dangling:  # a dead end is on no shortest path
            node = dangling.popleft()
            for other in neighbours.pop(node):
                neighbours[other].discard(node)
                if len(neighbours[other]) == 1 and other not in wanted:
                    dangling.append(other)
        return neighbours


def distances(neighbours: Mapping[str, set[str]], start: str) -> dict[str, int]:
    """Edges of the shortest path from a node to every node that can be reached, in a graph: node -> those beside it.

    Example:
        >>> distances({"cat": {"animal"}, "animal": {"cat", "dog"}, "dog": {"animal"}}, "cat")
        {'cat': 0, 'animal': 1, 'dog': 2}
    """
    edges = {start: 0}
    queue = deque([start])
    while queue:
        here = queue.popleft()
        for other in neighbours[here]:
            if other not in edges:
                edges[other] = edges[here] + 1
                queue.append(other)
    return edges


def metrics_to(
    graph: IsA, truth: str, predicted: Sequence[str], *, neighbours: Mapping[str, set[str]] | None = None
) -> dict[str, list[float]]:
    """Metrics of several predictions for one truth, in the order of the predictions.

    With A = ancestors including the node itself: ``lca_error`` |A_p| - |A_p & A_t| + 1 (1 = the truth or one of
    its ancestors), ``jaccard`` |A_p & A_t| / |A_p or A_t|, ``hierarchical_precision`` |A_p & A_t| / |A_p|,
    ``hierarchical_recall`` |A_p & A_t| / |A_t|, and ``tie``, the edges of the shortest undirected path.

    Args:
        neighbours: ``graph.neighbours_between`` nodes that include all of these; saves time over many truths.

    Raises:
        ValueError: when there is no path to one of them.

    Example:
        >>> graph = IsA({"animal": [], "cat": ["animal"], "dog": ["animal"]})
        >>> metrics_to(graph, "cat", ["cat", "dog"])["tie"]
        [0.0, 2.0]
    """
    edges = distances(graph.neighbours if neighbours is None else neighbours, truth)
    above_t = graph.ancestors(truth)
    metrics: dict[str, list[float]] = {name: [] for name in NAMES}
    for node in predicted:
        if node not in edges:
            raise ValueError(f"no path between {node!r} and {truth!r}; connect the hierarchy by a root.")
        above_p = graph.ancestors(node)
        common = len(above_p & above_t)
        values = (
            float(edges[node]),
            float(len(above_p) - common + 1),
            common / (len(above_p) + len(above_t) - common),
            common / len(above_p),
            common / len(above_t),
        )
        for name, value in zip(NAMES, values, strict=True):
            metrics[name].append(value)
    return metrics
