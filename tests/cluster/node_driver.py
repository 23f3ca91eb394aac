"""A driver whose cluster loses a node midway; it prints the keys of all results.

It has a process of its own: in a second session of one process, Ray takes actors for those of the
first.
"""

import ray
from ray.cluster_utils import Cluster

from pal.cluster.actors import ActorPool
from pal.cluster.nodes import NodeContext
from pal.cluster.settings import ClusterResources
from tests.cluster.works import Doubling

STORE = 80_000_000  # bytes; what the library takes itself is a third of the memory


def main():
    """Have 30 numbers doubled by two nodes, one of which is killed after the eighth."""
    head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    two = [cluster.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(2)]
    ray.init(cluster.address, logging_level="ERROR", log_to_driver=False)
    pool, keys = ActorPool("x=ray", "x", None, ClusterResources()), []
    tasks = {str(n): n for n in range(100, 130)}
    for key, result in pool.run(Doubling(seconds=0.5), tasks, NodeContext.of_driver()):
        assert result == 2 * int(key)
        keys.append(key)
        if len(keys) == 8:
            cluster.remove_node(two[0], allow_graceful=False)
    print("results:", *sorted(keys))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
