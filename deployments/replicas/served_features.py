"""Features that a retriever of the service makes for an annotator."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from deployments.wire import ExtractAnswer
from models.errors import AmbienceError, RetrieverUnavailable
from models.types import Features, Pixels, TextFeatures

TEXT_SECONDS = 300.0
"""Time for a whole list of words, whose tower may take 50 ms for each on a CPU."""
PICTURE_SECONDS = 30.0


Runner = Callable[[Coroutine[Any, Any, Any]], Any]
"""Runs a coroutine on an event loop and returns its result."""


def on_loop(loop: asyncio.AbstractEventLoop) -> Runner:
    """A runner for threads beside this loop."""
    return lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result()


class ServedFeatures:
    """Asks the application of a retriever, from a thread without an event loop of its own."""

    def __init__(self, name: str, run: Runner) -> None:
        self.name = name
        self._run = run

    def of_texts(self, texts: Sequence[str]) -> TextFeatures:
        """Features of texts under the model that searches use."""
        answer = self._run(self._ask("text_features", TEXT_SECONDS, tuple(texts)))
        assert isinstance(answer, TextFeatures)
        return answer

    def of_picture(self, pixels: Pixels, fingerprint: str) -> Features:
        """Features of a preview in this feature space."""
        answer = self._run(self._ask("extract", PICTURE_SECONDS, pixels, fingerprint))
        assert isinstance(answer, ExtractAnswer)
        return np.frombuffer(answer.row, np.float32)

    async def _ask(self, method: str, seconds: float, *payload: Any) -> Any:
        try:
            handle = await asyncio.to_thread(serve.get_app_handle, self.name)
            async with asyncio.timeout(seconds):
                answer = await getattr(handle, method).remote(*payload)
        except (KeyError, TimeoutError, RayError, RayServeException) as exc:
            raise RetrieverUnavailable(f"{self.name} does not answer") from exc
        if isinstance(answer, RetrieverUnavailable):
            raise RetrieverUnavailable(f"{self.name}: {answer}")
        if isinstance(answer, AmbienceError):
            raise answer
        return answer
