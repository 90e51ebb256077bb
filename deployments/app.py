"""Builders of the Serve applications; `serve_config.yaml` names them. The only file that binds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray import serve
from ray.serve import Application

from deployments.annotator import Annotator
from deployments.ingress import Ingress
from deployments.known import WORDS_ONLY
from deployments.layout import deployments_of
from deployments.retriever import Retriever
from deployments.settings import AnnotatorArgs, IngressArgs, RetrieverArgs
from indexes.registry import make_index
from models.annotator import make_annotator
from models.base import make_extractor
from models.errors import InvalidInput
from models.types import Options

RESERVED_CPUS = 0.02
"""A reservation, not a limit: the whole stack, doubled in an upgrade, fits two cores."""

LOGGING = {"enable_access_log": False}
"""A line for every call costs more than a small call; /metrics counts them."""


def build_retriever(args: dict[str, Any], beside: Sequence[str] = ()) -> Application:
    """A retriever of `models/extractors/`. A misspelt name or option fails here, with its name.

    `beside` names deployments of another layout, which go on until this one is ready.
    """
    parsed = RetrieverArgs.model_validate(args)
    extractor = make_extractor(parsed.extractor, parsed.options)
    if extractor.reads_text and parsed.index.get("whitening"):
        raise InvalidInput("words and pictures share one space, which is never whitened")
    make_index(extractor.index, parsed.index, lambda _: {})
    names = deployments_of("Retriever" if extractor.of_pictures else WORDS_ONLY, parsed.shards)
    # Serve knows an application by one deployment: it is handed the others, and asks them nothing.
    others = [_bound(Retriever, name, parsed) for name in (*names[1:], *beside)]
    return _bound(Retriever, names[0], parsed, others)


def build_annotator(args: dict[str, Any]) -> Application:
    """An annotator of `models/annotators/`. A misspelt name or option fails here, with its name."""
    parsed = AnnotatorArgs.model_validate(args)
    make_annotator(parsed.annotator, parsed.options)
    return _bound(Annotator, "Annotator", parsed)


def build_ingress(args: dict[str, Any]) -> Application:
    """The gateway over HTTP."""
    parsed = IngressArgs.model_validate(args)
    settings: dict[str, Any] = {"max_ongoing_requests": 1000, "graceful_shutdown_timeout_s": 10}
    return _bound(serve.ingress()(Ingress), "Ingress", parsed, **settings)


def _bound(
    kind: type[Any], name: str, args: Options, others: Sequence[Application] = (), **settings: Any
) -> Application:
    """A deployment, with what all have alike, and others of its application."""
    alike: dict[str, Any] = {
        "max_ongoing_requests": 256,
        "max_surge_percent": 100,
        "ray_actor_options": {"num_cpus": RESERVED_CPUS},
        "graceful_shutdown_timeout_s": 5,
        "health_check_period_s": 1,
        "logging_config": LOGGING,
    }
    deployment: Any = serve.deployment(kind, name=name, **(alike | settings))
    application: Application = deployment.bind(args, *others)
    return application
