"""Builders of the Serve applications, named by `serve_config.yaml`. The only file that calls
`.bind`."""

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
"""CPU reservation, not a limit: the whole stack, doubled during an upgrade, fits two cores."""

LOGGING = {"enable_access_log": False}
"""Access log off: a line per call costs more than a small call, and /metrics counts calls."""


def build_retriever(args: dict[str, Any]) -> Application:
    """Build a retriever of `models/extractors/`. A misspelt name or option fails here, by its
    name."""
    given = RetrieverArgs.model_validate(args)
    parsed = given.model_copy(update={"beside": ()})
    kinds = {_checked(model).of_pictures for model in parsed.models()}
    if parsed.next is not None and kinds != {True}:
        raise InvalidInput("`next` is for models of pictures only")
    kind = Retriever if parsed.next is None else ChangingRetriever
    names = deployments_of("Retriever" if kinds == {True} else WORDS_ONLY, parsed.shards)
    # Serve identifies an application by one deployment, which must be given the others; it
    # calls none.
    others = [_bound(kind, name, parsed) for name in (*names[1:], *given.beside)]
    return _bound(kind, names[0], parsed, others)


def _checked(args: RetrieverArgs) -> Extractor:
    extractor = make_extractor(args.extractor, args.options)
    if extractor.reads_text and args.index.get("whitening"):
        raise InvalidInput("words and pictures share one space, which is never whitened")
    make_index(extractor.index, args.index, lambda _: {}).check_dtype(extractor.dtype)
    return extractor


def build_annotator(args: dict[str, Any]) -> Application:
    """Build an annotator of `models/annotators/`. A misspelt name or option fails here, by its
    name."""
    parsed = AnnotatorArgs.model_validate(args)
    make_annotator(parsed.annotator, parsed.options)
    return _bound(Annotator, "Annotator", parsed)


def build_ingress(args: dict[str, Any]) -> Application:
    """Build the ingress, which answers HTTP."""
    parsed = IngressArgs.model_validate(args)
    settings: dict[str, Any] = {"max_ongoing_requests": 1000, "graceful_shutdown_timeout_s": 10}
    return _bound(serve.ingress()(Ingress), "Ingress", parsed, **settings)


def _bound(
    kind: type[Any], name: str, args: Options, others: Sequence[Application] = (), **settings: Any
) -> Application:
    """A deployment with the common settings, and the other deployments of its application."""
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
