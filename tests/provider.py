"""Nodes for Ray's autoscaler: Ray's own provider of nodes that are processes of this machine, mended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider


class Provider(FakeMultiNodeProvider):  # type: ignore[misc]
    """Takes node types that say how much memory they have, which Ray's takes for a resource of its own."""

    def create_node_with_resources_and_labels(
        self, node_config: Any, tags: Any, count: int, resources: Mapping[str, float], labels: Any
    ) -> None:
        """As many nodes as `count`, with what there is of memory."""
        others = {name: amount for name, amount in resources.items() if name != "memory"}
        super().create_node_with_resources_and_labels(node_config, tags, count, others, labels)
