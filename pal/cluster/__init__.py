"""What every job on a Ray cluster shares: joining it, what a node must have, work for its actors.

``joining`` finds the cluster, ``nodes`` makes a node's process one that computes the same as the
one that asks, ``actors`` gives tasks to processes that load a model once each.
"""
