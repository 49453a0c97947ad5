"""Distance of a prediction from the truth in an is-a hierarchy: pure functions of a graph.

Source: HyCoCLIP (Pal et al. 2025, arXiv 2410.06912), section 4, after Kosmopoulos et al. 2015.
"""

from collections import deque
from collections.abc import Collection, Mapping, Sequence

#: Names of the metrics of :func:`metrics_to`, in this order.
NAMES = ("tie", "lca_error", "jaccard", "hierarchical_precision", "hierarchical_recall")


class IsA:
    """An is-a relation: each node with its parents; several parents and several roots are allowed.

    Args:
        parents: Node -> its parents; every parent is a node itself.

    Raises:
        ValueError: for a parent that is not a node, or a circle.
    """

    def __init__(self, parents: Mapping[str, Sequence[str]]) -> None:
        self.parents = {node: tuple(above) for node, above in parents.items()}
        for node, above in self.parents.items():
            if unknown := [p for p in above if p not in self.parents]:
                raise ValueError(f"parents: {node!r} has the parent {unknown[0]!r}, which is not a node.")
        self._ancestors: dict[str, frozenset[str]] = {}
        self._neighbours: dict[str, set[str]] = {node: set(above) for node, above in self.parents.items()}
        for node, above in self.parents.items():
            for parent in above:
                self._neighbours[parent].add(node)
        for node in self.parents:
            self._find_ancestors(node)

    def __contains__(self, node: object) -> bool:
        return node in self.parents

    def _find_ancestors(self, start: str) -> None:
        """Depth first without recursion: a taxonomy may be deeper than Python's stack."""
        path: list[str] = [start]
        open_nodes = {start}
        while path:
            node = path[-1]
            waiting = [p for p in self.parents[node] if p not in self._ancestors]
            if node in self._ancestors or not waiting:
                own = {node}.union(*(self._ancestors[p] for p in self.parents[node]))
                self._ancestors[node] = frozenset(own)
                open_nodes.discard(path.pop())
            elif waiting[0] in open_nodes:
                raise ValueError(f"parents: {waiting[0]!r} is its own ancestor; expected no circles.")
            else:
                path.append(waiting[0])
                open_nodes.add(waiting[0])

    def ancestors(self, node: str) -> frozenset[str]:
        """The node and all nodes above it. Raises KeyError for an unknown node."""
        return self._ancestors[node]

    def distances(self, node: str) -> dict[str, int]:
        """Edges of the shortest undirected path from a node to every node that can be reached."""
        return _distances(self._neighbours, node)

    def paths(self, nodes: Collection[str]) -> "Paths":
        """The part of the graph that shortest paths between these nodes can use."""
        neighbours = {node: set(others) for node, others in self._neighbours.items()}
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
        return Paths(neighbours)


class Paths:
    """Shortest paths between some nodes of a graph, made by :meth:`IsA.paths`.

    Args:
        neighbours: Node -> the nodes beside it.
    """

    def __init__(self, neighbours: Mapping[str, set[str]]) -> None:
        self.neighbours = neighbours

    def distances(self, node: str) -> dict[str, int]:
        """Edges of the shortest undirected path from one of the nodes to those that can be reached."""
        return _distances(self.neighbours, node)


def _distances(neighbours: Mapping[str, set[str]], node: str) -> dict[str, int]:
    distances = {node: 0}
    queue = deque([node])
    while queue:
        here = queue.popleft()
        for other in neighbours[here]:
            if other not in distances:
                distances[other] = distances[here] + 1
                queue.append(other)
    return distances


def metrics_to(
    graph: IsA, truth: str, predicted: Sequence[str], *, paths: Paths | None = None
) -> dict[str, list[float]]:
    """Metrics of several predictions for one truth, in the order of the predictions.

    With A = ancestors including the node itself: ``lca_error`` |A_p| - |A_p & A_t| + 1 (1 = the truth or one of
    its ancestors), ``jaccard`` |A_p & A_t| / |A_p or A_t|, ``hierarchical_precision`` |A_p & A_t| / |A_p|,
    ``hierarchical_recall`` |A_p & A_t| / |A_t|, and ``tie``, the edges of the shortest undirected path.

    Args:
        graph: The hierarchy.
        truth: A node.
        predicted: Nodes.
        paths: ``graph.paths`` of nodes that include all of these; saves time over many truths.

    Raises:
        ValueError: when there is no path to one of them.
    """
    distances = (graph if paths is None else paths).distances(truth)
    above_t = graph.ancestors(truth)
    metrics: dict[str, list[float]] = {name: [] for name in NAMES}
    for node in predicted:
        if node not in distances:
            raise ValueError(f"no path between {node!r} and {truth!r}; connect the hierarchy by a root.")
        above_p = graph.ancestors(node)
        common = len(above_p & above_t)
        values = (
            float(distances[node]),
            float(len(above_p) - common + 1),
            common / (len(above_p) + len(above_t) - common),
            common / len(above_p),
            common / len(above_t),
        )
        for name, value in zip(NAMES, values, strict=True):
            metrics[name].append(value)
    return metrics
