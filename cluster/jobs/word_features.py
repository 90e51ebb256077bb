"""Features of words that a job's annotators ask of a retriever: of the running service, or made
once in this process.

The job's workers get the features, so that none of them loads the retriever's model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cluster.service.applications import RETRIEVER, built_by
from deployments.replicas.served_features import ServedFeatures
from deployments.settings import RetrieverArgs
from models.base import Extractor
from models.errors import RetrieverUnavailable
from models.registry import make_extractor
from models.types import Features, Pixels, TextFeatures


class RememberedFeatures:
    """A source that remembers its answers. A copy in another process has these answers only."""

    def __init__(self, ask: Callable[[Sequence[str]], TextFeatures] | None) -> None:
        self._ask = ask
        self._known: dict[Sequence[str], TextFeatures] = {}

    def of_texts(self, texts: Sequence[str]) -> TextFeatures:
        """Features of texts; of none, those that are known."""
        texts = tuple(texts)
        if not texts and self._known:
            return next(iter(self._known.values()))
        if texts not in self._known:
            if self._ask is None:
                raise RetrieverUnavailable("the list of words has changed since the job began")
            self._known[texts] = self._ask(texts)
        return self._known[texts]

    def of_picture(self, pixels: Pixels, fingerprint: str) -> Features:  # noqa: ARG002
        """Raises RetrieverUnavailable: jobs read stored features."""
        raise RetrieverUnavailable("a job makes no features of pictures")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_ask": None}


def text_features(
    name: str, config: Mapping[str, Any], active: str | None, texts: Sequence[str]
) -> TextFeatures:
    """Features of texts by a retriever of the service that Ray is connected to; where there is
    none, by its extractor, which is discarded afterwards.

    `active` is the fingerprint of the model that searches use, where the store names one. Raises
    RetrieverUnavailable.
    """
    try:
        return ServedFeatures(name, asyncio.run).of_texts(texts)
    except RetrieverUnavailable:
        extractor = _extractor(name, config, active)
    extractor.load()
    return extractor.text_features(texts)


def _extractor(name: str, config: Mapping[str, Any], active: str | None) -> Extractor:
    given = built_by(RETRIEVER, config).get(name)
    if given is None:
        raise RetrieverUnavailable(f"the config has no retriever {name!r}")
    models = [
        make_extractor(model.extractor, model.options)
        for model in RetrieverArgs.model_validate(given).models()
    ]
    if active is None:
        return models[0]
    return next((model for model in models if model.fingerprint == active), models[0])
