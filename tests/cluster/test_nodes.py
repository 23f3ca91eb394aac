"""Answers on a Ray cluster of several nodes, one of which is killed."""

import pytest

from pal.cluster.actors import ActorPool
from pal.cluster.nodes import NodeContext
from pal.cluster.settings import ClusterResources
from tests.cluster.works import Doubling
from tests.jobs import ROOT

cluster_utils = pytest.importorskip("ray.cluster_utils")
pytestmark = pytest.mark.cluster
STORE = 80_000_000  # bytes; what the library takes itself is a third of the memory


@pytest.fixture
def cluster(monkeypatch):
    """A head that computes nothing, and two nodes with one core each."""
    import ray

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False}
    found = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    found.two = [found.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(2)]
    ray.init(found.address, logging_level="ERROR", log_to_driver=False)
    yield found
    ray.shutdown()
    found.shutdown()


def test_a_node_is_killed_and_every_result_comes_once(cluster):
    keys = []
    with ActorPool("x=ray", "x", None, ClusterResources()) as pool:
        tasks = {str(n): n for n in range(100, 130)}
        for key, result in pool.run(Doubling(seconds=0.5), tasks, NodeContext.of_driver()):
            assert result == 2 * int(key)
            keys.append(key)
            if len(keys) == 8:
                cluster.remove_node(cluster.two[0], allow_graceful=False)
    assert sorted(keys) == sorted(tasks)
