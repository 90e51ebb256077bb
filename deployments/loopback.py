"""Keep every socket on loopback when the service listens there."""

from __future__ import annotations

import os
from typing import Any


def keep_sockets_on_loopback() -> None:
    """Make this replica's gRPC server for other deployments bind 127.0.0.1 (AMBIENCE_LOOPBACK=1).

    Ray Serve binds it to `[::]` and has no setting for it. A test lists the listening sockets of
    all our processes, and fails when a Ray release moves this code.
    """
    if os.environ.get("AMBIENCE_LOOPBACK") != "1":
        return
    import ray.serve._private.replica

    replica: Any = ray.serve._private.replica
    add_port = replica.add_port_to_grpc_server

    def add_loopback_port(server: Any, address: str) -> Any:
        return add_port(server, address.replace("[::]", "127.0.0.1"))

    replica.add_port_to_grpc_server = add_loopback_port
