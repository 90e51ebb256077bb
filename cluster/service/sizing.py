"""Settings of deployments by the size of the machine or cluster, where the config gives none.

Threads need no setting: each replica takes as many as it has cores (`models.machine`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.service.applications import ANNOTATOR, INGRESS, RETRIEVER, Deployments, built_by
from models.method import Method
from models.registry import make_annotator, make_extractor

CORES_PER_INGRESS = 4
"""Cores that one ingress replica keeps busy: its event loop, its decoding and the retrievers."""
MOST_INGRESSES = 4
GPU_SHARES = 3
"""Parts of each GPU: for the replicas, for their replacements during an upgrade, for jobs."""
LEAST_GPU = 0.0001
"""Smallest fraction of a GPU that Ray reserves."""


def usual_settings(config: Mapping[str, Any], cpus: float, gpus: float) -> Deployments:
    """Settings of all deployments of an application, by its name.

    The ingress gets a number of replicas, each neural application a share of the GPUs, which is a
    reservation, not a limit. Raises AmbienceError for an unknown method or option.
    """
    settings: Deployments = {
        name: {"num_replicas": ingress_replicas(cpus)} for name in built_by(INGRESS, config)
    }
    neural = neural_applications(config)
    if share := gpu_share(gpus, len(neural)):
        settings |= {name: {"ray_actor_options": {"num_gpus": share}} for name in neural}
    return settings


def ingress_replicas(cpus: float) -> int:
    """Number of ingress replicas for so many cores."""
    return max(1, min(MOST_INGRESSES, int(cpus) // CORES_PER_INGRESS))


def gpu_share(gpus: float, applications: int) -> float:
    """The fraction of a GPU that each of these applications reserves per replica; 0 for none."""
    if not gpus or not applications:
        return 0.0
    return max(LEAST_GPU, reservable(min(1.0, gpus / (GPU_SHARES * applications))))


def reservable(share: float) -> float:
    """GPUs rounded down to what Ray can reserve: a fraction of one, or a whole number."""
    return float(int(share)) if share > 1 else round(int(share / LEAST_GPU) * LEAST_GPU, 4)


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
