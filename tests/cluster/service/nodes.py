"""A Ray cluster of several nodes on this host: `python -m tests.cluster.service.nodes`.

The process reads one JSON list per line, a command and its arguments, and answers each with one
line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.cluster_utils import Cluster

from cluster.service.applications import apply, read_config

OBJECT_STORE_BYTES = 80 * 2**20


class Nodes:
    """A Ray cluster: its head node, and the other nodes by name."""

    def __init__(self, folder: str) -> None:
        head = {"temp_dir": folder, "include_dashboard": False}
        self._cluster = Cluster(True, head_node_args=head | _node("head", 4))
        self._others: dict[str, Any] = {}
        ray.init(
            address=self._cluster.address,
            namespace="serve",
            log_to_driver=False,
            logging_level=logging.ERROR,
        )

    def add(self, name: str) -> None:
        """Start a node whose replicas can be placed by the resource `name`."""
        self._others[name] = self._cluster.add_node(**_node(name, 2))

    def kill(self, name: str) -> None:
        """SIGKILL all of a node's processes."""
        self._cluster.remove_node(self._others.pop(name), allow_graceful=False)

    def deploy(self, path: str) -> None:
        """Deploy the applications of this configuration file."""
        apply(read_config(Path(path)))

    def replicas(self, name: str) -> list[str]:
        """Return the node names of an application's running replicas, one entry per replica."""
        client = serve.context._get_global_client()
        application = client.get_serve_details()["applications"].get(name, {"deployments": {}})
        by_id = {self._cluster.head_node.node_id: "head"}
        by_id |= {node.node_id: other for other, node in self._others.items()}
        return sorted(
            by_id.get(replica["node_id"], "gone")
            for deployment in application["deployments"].values()
            for replica in deployment["replicas"]
            if replica["state"] == "RUNNING"
        )

    def message(self, name: str) -> str:
        """Return Serve's messages about an application and its deployments."""
        application = serve.status().applications[name]
        told = [one.message for one in application.deployments.values()]
        return " ".join([application.message, *told])

    def stop(self) -> None:
        """Shut down Serve, Ray and all nodes."""
        serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()
        self._cluster.shutdown()


def _node(name: str, cpus: int) -> dict[str, Any]:
    return {
        "num_cpus": cpus,
        "resources": {name: 1},
        "object_store_memory": OBJECT_STORE_BYTES,
        "node_ip_address": "127.0.0.1",
    }


def main() -> None:
    answers = sys.stdout
    # Ray also prints to standard output.
    with contextlib.redirect_stdout(sys.stderr):
        nodes = Nodes(sys.argv[1])
        print("[]", file=answers, flush=True)
        for line in sys.stdin:
            command, *arguments = json.loads(line)
            answer = getattr(nodes, command)(*arguments)
            print(json.dumps(answer), file=answers, flush=True)
        nodes.stop()


if __name__ == "__main__":
    main()
