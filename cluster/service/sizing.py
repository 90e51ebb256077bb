"""What the config leaves open, filled in by the size of the machine or cluster.

Threads need no setting: each replica takes as many as it has cores (`models.machine`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.service.applications import ANNOTATOR, INGRESS, RETRIEVER, built_by
from models.method import Method
from models.registry import make_annotator, make_extractor

CORES_PER_INGRESS = 4
"""Cores that one ingress replica keeps busy: its event loop, its decoding and the retrievers."""
MOST_INGRESSES = 4
GPU_SHARES = 3
"""Parts of each GPU: for the replicas, for their replacements during an upgrade, for jobs."""
LEAST_GPU = 0.0001
"""Smallest fraction of a GPU that Ray reserves."""

Settings = dict[str, Any]


def sized(config: Mapping[str, Any], cpus: float, gpus: float) -> dict[str, Any]:
    """The config with numbers of replicas and shares of GPUs where it gives none.

    A fraction of a GPU is a reservation, not a limit.
    """
    neural = neural_applications(config) if gpus else []
    share = gpu_share(gpus, len(neural))
    ingresses = built_by(INGRESS, config)
    applications = []
    for application in config["applications"]:
        given = application.get("deployments") or []
        if application["name"] in ingresses:
            given = _with_default(given, "num_replicas", ingress_replicas(cpus), "Ingress")
        elif application["name"] in neural and share:
            given = [_on_gpu(one, share) for one in given or [{"name": "Retriever"}]]
        applications.append({**application, "deployments": [_reserved(one) for one in given]})
    return {**config, "applications": applications}


def ingress_replicas(cpus: float) -> int:
    """Number of ingress replicas for so many cores."""
    return max(1, min(MOST_INGRESSES, int(cpus) // CORES_PER_INGRESS))


def gpu_share(gpus: float, applications: int) -> float:
    """The fraction of a GPU that each of these applications reserves per replica; 0 for none."""
    if not gpus or not applications:
        return 0.0
    share = min(1.0, gpus / (GPU_SHARES * applications))
    return max(LEAST_GPU, int(share / LEAST_GPU) * LEAST_GPU)


def neural_applications(config: Mapping[str, Any]) -> list[str]:
    """Names of the applications whose method computes on a GPU where there is one.

    Raises AmbienceError for an unknown method or option.
    """
    methods: dict[str, Method] = {
        name: make_extractor(str(args.get("extractor")), args.get("options"))
        for name, args in built_by(RETRIEVER, config).items()
    }
    methods |= {
        name: make_annotator(str(args.get("annotator")), args.get("options"))
        for name, args in built_by(ANNOTATOR, config).items()
    }
    return [name for name, method in methods.items() if method.uses_gpu]


def _with_default(given: list[Settings], key: str, value: Any, name: str) -> list[Settings]:
    if not given:
        return [{"name": name, key: value}]
    both = ("num_replicas", "autoscaling_config")
    return [one if any(other in one for other in both) else {**one, key: value} for one in given]


def _on_gpu(given: Settings, share: float) -> Settings:
    options = given.get("ray_actor_options") or {}
    return given | {"ray_actor_options": {"num_gpus": round(share, 4), **options}}


def _reserved(given: Settings) -> Settings:
    """With our reservation of CPUs where only other resources are given: Serve's own is a whole
    core."""
    from deployments.app import RESERVED_CPUS

    options = given.get("ray_actor_options")
    if not options:
        return given
    return given | {"ray_actor_options": {"num_cpus": RESERVED_CPUS, **options}}
