"""The environment of a service on one host: set before Ray is imported, inherited by all
processes."""

from __future__ import annotations

import os
from pathlib import Path

MARK = "AMBIENCE_SERVICE"
"""Holds the data folder in every process of a service, so that leftover processes can be found."""

RAY_ENVIRONMENT = {
    # User code runs on the replica's own loop, with gRPC between deployments: 3 times Ray's
    # default rate.
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # The ingress replica binds the service's port itself; Serve would choose a changing one.
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(64 * 2**20),
    "RAY_allow_out_of_band_object_ref_serialization": "0",
    # Without a cluster Ray uses 127.0.0.1 as its node address on every platform but Linux.
    # This variable makes Linux do the same, so that all of Ray's own sockets stay on
    # loopback.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "AMBIENCE_LOOPBACK": "1",
    # Whoever reaches Ray's ports without its token could run code as the service.
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray would run replicas at niceness 15, where any other program of the host would starve
    # them.
    "RAY_worker_niceness": "0",
    "RAY_DEDUP_LOGS": "0",
    # By default each file may grow to 512 MB, five times.
    "RAY_ROTATION_MAX_BYTES": str(16 * 2**20),
    "RAY_ROTATION_BACKUP_COUNT": "1",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


OF_A_CLUSTER = "RAY_ADDRESS"
"""Names the Ray of a cluster, in every process of its nodes; its own environment says whether it
wants a token."""
PRIVATE = 0o077
"""A umask: files and folders are their owner's alone."""


def prepare(data: Path, host: str, port: int) -> None:
    """Set this process's environment for a service over `data` at this address, and its umask."""
    os.umask(PRIVATE)
    for name, value in RAY_ENVIRONMENT.items():
        if name != "RAY_AUTH_MODE" or OF_A_CLUSTER not in os.environ:
            os.environ.setdefault(name, value)
    os.environ.update(
        {
            "AMBIENCE_DATA": str(data),
            "AMBIENCE_HOST": host,
            "AMBIENCE_PORT": str(port),
            MARK: str(data),
        }
    )


def use_token(file: Path) -> None:
    """Make Ray, which may be imported already, take its token from this file."""
    os.environ.pop("RAY_AUTH_TOKEN", None)
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(file)


def keep_compiled(data: Path) -> None:
    """Let numba, before its import, keep in the data folder what it compiles, unless it can beside
    the sources: without a home directory it would refuse to compile anything."""
    if not os.access(Path(__file__).parent, os.W_OK):
        os.environ.setdefault("NUMBA_CACHE_DIR", str(data / "compiled"))
