"""Open the store in a worker of a Ray cluster."""

from __future__ import annotations

import ray
from ray.experimental import internal_kv

from indexes.store.base import Store
from indexes.store.url import open_store
from models.errors import StoreUnavailable

NAMESPACE = "ambience"


def open_here(url: str) -> Store:
    """Open a store. Raises StoreUnavailable for an LMDB folder that another node has opened.

    A folder of the same name on another machine would be another store or, on a shared disk, be
    damaged by two machines. So the first node that opens it keeps it for the cluster's lifetime.
    """
    if url.startswith("lmdb:") and ray.is_initialized():
        node = ray.get_runtime_context().get_node_id()
        internal_kv._internal_kv_put(url, node, overwrite=False, namespace=NAMESPACE)
        first = internal_kv._internal_kv_get(url, namespace=NAMESPACE)
        if first != node.encode():
            raise StoreUnavailable(
                f"{url} is a folder of another node: for replicas on several nodes set "
                "AMBIENCE_STORE=postgresql://…, and `ambience store copy` what is stored"
            )
    return open_store(url)
