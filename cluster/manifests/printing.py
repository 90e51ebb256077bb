"""Print manifests for a cluster: the applications of `serve_config.yaml`, behind Serve's own
proxies."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent
from typing import Any

import yaml

from cluster.service.applications import INGRESS, built_by, validated
from cluster.service.data_folder import CannotStart

RAYSERVICE = Path(__file__).with_name("rayservice.yaml")
"""A RayService that ends with `serveConfigV2: |`, after which the applications are inserted."""
HTTP = {"host": "0.0.0.0", "port": 8000}
"""Address of Serve's proxies, unless the config sets it."""
HOSTS = ["ambience", "ambience-serve-svc", ".svc", ".svc.cluster.local"]
"""Names by which a cluster's own programs call the service, unless the config sets them."""


def serve_config(config: dict[str, Any]) -> str:
    """YAML for Serve's own deployment: the same applications, but the ingress binds no port.

    Raises CannotStart where the config is invalid.
    """
    ingresses = built_by(INGRESS, config)
    if not ingresses:
        raise CannotStart(f"no application of the config is built by {INGRESS}")
    applications = [
        one | {"args": {"allowed_hosts": HOSTS} | ingresses[one["name"]] | {"listen": False}}
        if one["name"] in ingresses
        else one
        for one in config["applications"]
    ]
    changed = {"http_options": HTTP} | config
    changed |= {"proxy_location": "EveryNode", "applications": applications}
    validated(changed)
    return yaml.safe_dump(changed, sort_keys=False)


def rayservice(config: dict[str, Any]) -> str:
    """A KubeRay RayService of these applications. Raises CannotStart where the config is
    invalid."""
    return RAYSERVICE.read_text() + indent(serve_config(config), "    ")
