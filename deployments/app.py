"""Builders of the Serve applications; `serve_config.yaml` names them. The only file that binds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray import serve
from ray.serve import Application

from deployments.directory.entry import WORDS_ONLY
from deployments.http.application import Ingress
from deployments.layout import deployments_of
from deployments.replicas.annotator import Annotator
from deployments.replicas.model_change import ChangingRetriever
from deployments.replicas.retriever import Retriever
from deployments.settings import AnnotatorArgs, IngressArgs, RetrieverArgs
from indexes.registry import make_index
from models.base import Extractor
from models.errors import InvalidInput
from models.registry import make_annotator, make_extractor
from models.types import Options

RESERVED_CPUS = 0.02
"""A reservation, not a limit: the whole stack, doubled in an upgrade, fits two cores."""

LOGGING = {"enable_access_log": False}
"""A line for every call costs more than a small call; /metrics counts them."""


def build_retriever(args: dict[str, Any]) -> Application:
    """A retriever of `models/extractors/`. A misspelt name or option fails here, with its name."""
    given = RetrieverArgs.model_validate(args)
    parsed = given.model_copy(update={"beside": ()})
    kinds = {_checked(model).of_pictures for model in parsed.models()}
    if parsed.next is not None and kinds != {True}:
        raise InvalidInput("`next` is for models of pictures only")
    kind = Retriever if parsed.next is None else ChangingRetriever
    names = deployments_of("Retriever" if kinds == {True} else WORDS_ONLY, parsed.shards)
    # Serve knows an application by one deployment: it is handed the others, and asks them nothing.
    others = [_bound(kind, name, parsed) for name in (*names[1:], *given.beside)]
    return _bound(kind, names[0], parsed, others)


def _checked(args: RetrieverArgs) -> Extractor:
    extractor = make_extractor(args.extractor, args.options)
    if extractor.reads_text and args.index.get("whitening"):
        raise InvalidInput("words and pictures share one space, which is never whitened")
    make_index(extractor.index, args.index, lambda _: {})
    return extractor


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
