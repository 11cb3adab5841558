"""The queue of a cluster's work: what is lost comes back once, and nothing comes twice."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wording import Wording

from harness.cluster.on_ray import ClusterError, ClusterNode, Lost, Queue, spread

NODES = [ClusterNode(name, name, name, 2, 0) for name in "ab"]


class Nodes:
    """A cluster that is told which nodes it has."""

    def __init__(self, nodes: list[ClusterNode]) -> None:
        self.alive = nodes

    def nodes(self) -> list[ClusterNode]:
        return self.alive


@given(st.lists(st.sampled_from("xyz"), min_size=1, max_size=30), st.sets(st.integers(0, 29)))
def test_each_item_is_done_once_whatever_is_lost(kinds: list[str], unlucky: set[int]) -> None:
    items = list(enumerate(kinds))
    queue = Queue(items, lambda item: item[1])
    tried: Counter[tuple[int, str]] = Counter()
    done: list[tuple[int, str]] = []
    busy: Counter[tuple[str, str]] = Counter()
    lock = threading.Lock()

    def work(node: ClusterNode, kind: str) -> None:
        with lock:
            busy[node.id, kind] += 1
            assert busy[node.id, kind] == 1, "two processes of a kind on one node"
        try:
            while (item := queue.take(kind)) is not None:
                tried[item] += 1
                if item[0] in unlucky and tried[item] == 1:
                    assert queue.lost(item)
                    raise Lost("killed")
                with lock:
                    done.append(item)
                queue.done(item)
        finally:
            with lock:
                busy[node.id, kind] -= 1

    spread(Nodes(NODES), queue, lambda node: node.cpus, work)  # type: ignore[arg-type]
    assert sorted(done) == items


def test_what_is_lost_twice_is_not_tried_again() -> None:
    queue = Queue(["cell"], str)
    assert queue.lost(queue.take("cell") or "")
    assert not queue.lost(queue.take("cell") or "")
    assert queue.take("cell") is None


def test_no_node_that_works_is_told(wording: Wording) -> None:
    def work(node: ClusterNode, kind: str) -> None:
        raise Lost("it does not start")

    with wording.raises(ClusterError):
        spread(Nodes(NODES[:1]), Queue(["x"], str), lambda node: 1, work)  # type: ignore[arg-type]
    with wording.raises(ClusterError):
        spread(Nodes([]), Queue(["x"], str), lambda node: 1, work)  # type: ignore[arg-type]


def test_an_error_of_the_work_ends_all_of_it() -> None:
    def work(node: ClusterNode, kind: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        spread(Nodes(NODES), Queue("abc", str), lambda node: 2, work)  # type: ignore[arg-type]
