"""A retriever with two models, its own and the next one. Each has an index; a query names one.

The store alone says which of them searches use (`Store.activate`), and the ingress looks it up once
for each search. So a switch needs no message to any replica, and no search mixes models.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from deployments.replicas.completion import Completer, keep_completing
from deployments.replicas.metrics import keep_showing
from deployments.replicas.retriever import Retriever
from deployments.settings import RetrieverArgs
from deployments.wire import Description, ExtractAnswer, SearchAnswer, SearchRequest
from indexes.store.base import Pending, Space, Store
from indexes.store.spaces import PAGE, missing_spaces
from models.errors import AmbienceError, RetrieverUnavailable
from models.pictures.decoding import Picture
from models.types import Pixels, TextFeatures


class Model(Retriever):
    """One of the two models. Completion and metrics are done for both together."""

    @property
    def space(self) -> Space | None:
        """Its feature space; None until it is loaded."""
        return self._space if self._loaded else None

    @property
    def uses_previews(self) -> bool:
        """Whether a stored preview is enough for extraction."""
        return self.extractor.view == "preview"

    def row_of(self, picture: Picture) -> bytes:
        """Features for the store, extracted in the thread that also extracts those of queries."""
        pixels = picture.view(self.extractor.view)
        extract = self._extracting.submit(self.extractor.extract, pixels)
        return self.extractor.to_row(extract.result())

    async def _complete(self) -> None:
        pass

    async def _show_metrics(self) -> None:
        pass


class ChangingRetriever:
    """Answers searches of both feature spaces."""

    def __init__(self, args: RetrieverArgs, *_: object) -> None:
        self.args = args
        self.models = tuple(Model(alone) for alone in args.models())
        self.name = self.models[0].name
        self.store = self.models[0].store
        loop = asyncio.get_event_loop()
        self._working = [loop.create_task(self._complete()), loop.create_task(self._show_metrics())]

    async def describe(self, tag: str | None = None) -> Description:
        """Description of the retriever's own model, with that of the next one."""
        own, following = [await model.describe(tag) for model in self.models]
        return replace(own, next=following)

    async def search(self, request: SearchRequest) -> SearchAnswer | AmbienceError:
        """Search in the feature space that the request names."""
        model = self._of(request.fingerprint)
        return await model.search(request) if isinstance(model, Model) else model

    async def features(self, request: SearchRequest) -> SearchRequest | AmbienceError:
        """The request with its features, in the space that it names."""
        model = self._of(request.fingerprint)
        return await model.features(request) if isinstance(model, Model) else model

    async def extract(
        self, pixels: Pixels, fingerprint: str | None = None
    ) -> ExtractAnswer | AmbienceError:
        """Extract features of one view, for the store."""
        model = self._of(fingerprint)
        return await model.extract(pixels) if isinstance(model, Model) else model

    async def text_features(self, texts: Sequence[str]) -> TextFeatures | AmbienceError:
        """Features of texts under the model that searches use."""
        return await (await self._active_model()).text_features(texts)

    async def check_health(self) -> None:
        """Raises when something ended in an unforeseen error, so that Serve replaces the
        replica."""
        await asyncio.gather(*(model.check_health() for model in self.models))
        for task in self._working:
            if task.done() and task.exception() is not None:
                raise RuntimeError(f"{self.name} has stopped") from task.exception()

    def _of(self, fingerprint: str | None) -> Model | AmbienceError:
        if fingerprint is None:
            return self.models[0]
        for model in self.models:
            if model.space is not None and model.space.fingerprint == fingerprint:
                return model
        return RetrieverUnavailable(f"{self.name} has no model {fingerprint}, or not yet")

    async def _complete(self) -> None:
        completer = ModelsCompleter(self.name, self.store, self.models)
        await keep_completing(completer, self.args.completion_interval)

    async def _show_metrics(self) -> None:
        await keep_showing(self.models[0].metrics_name, self._describe_active, self.store)

    async def _describe_active(self) -> Description:
        """Description of the model that searches use."""
        return await (await self._active_model()).describe()

    async def _active_model(self) -> Model:
        active = (await asyncio.to_thread(self.store.active)).get(self.name)
        model = self._of(active)
        return model if isinstance(model, Model) else self.models[0]


class ModelsCompleter(Completer):
    """Makes the missing features of every loaded model.

    It walks once through all images, then follows the log. An image that lacks all features of the
    kind gets those of both models from one decode, because its original goes as soon as it has any.
    """

    def __init__(self, name: str, store: Store, models: Sequence[Model]) -> None:
        super().__init__(name, store, "preview")
        self._models = models
        self._spaces: list[Space] = []
        self._todo: deque[int] = deque()
        self._looked_through: int | None = -1
        """The last id of the walk through all images; None once the walk has ended."""
        self._followed = 0
        """The log was read up to here."""

    def complete_one(self) -> bool:
        """Complete one image, or look at the next page. Returns False when there is nothing to do,
        or no lease."""
        spaces = [model.space for model in self._models if model.space is not None]
        if not spaces or not self._holds_lease():
            self._spaces = []  # Whoever had the lease meanwhile may have left anything undone.
            return False
        if spaces != self._spaces:
            self._spaces, self._looked_through = spaces, -1
            self._followed = self.store.head()
        if not self._todo:
            return self._look()
        image_id = self._todo.popleft()
        image = self.store.image(image_id)
        if image is not None and self.kind in image.wanted:
            work = Pending(image_id, image.generation, image.has_original, image.has_preview)
            if self._possible(work):
                self._complete(work)
        return True

    def _look(self) -> bool:
        """Find images to complete. Returns whether to go on at once."""
        before = self._looked_through, self._followed
        if self._looked_through is None:
            ids = self._changed()
        else:
            images = self.store.images(self._looked_through, PAGE)
            ids = [image.image_id for image in images]
            self._looked_through = ids[-1] if ids else None
        lacking = missing_spaces(self.store, self._spaces, ids)
        self._todo += [image_id for image_id, spaces in lacking.items() if spaces]
        if (pending := self._next()) is not None:
            self._todo.append(pending.image_id)
        return bool(self._todo) or before != (self._looked_through, self._followed)

    def _changed(self) -> list[int]:
        """Ids that got features, or lost them, since the last look."""
        heads, ids = [], set[int]()
        for space in self._spaces:
            changes = self.store.changes(space, self._followed, PAGE)
            if changes is None:
                self._spaces = []
                return []
            heads.append(changes.head)
            ids |= changes.rows.keys()
        self._followed = min(heads)
        return sorted(ids)

    def _possible(self, pending: Pending) -> bool:
        if (pending.image_id, pending.generation) in self._hopeless:
            return False
        return pending.has_original or (pending.has_preview and bool(self._from_previews()))

    def _from_previews(self) -> list[Model]:
        return [model for model in self._models if model.space and model.uses_previews]

    def _write(self, pending: Pending, picture: Picture, whole: bool) -> None:
        able = self._models if whole else self._from_previews()
        image_id = pending.image_id
        lacking = missing_spaces(self.store, self._spaces, [image_id]).get(image_id, set())
        rows = {
            space: model.row_of(picture)
            for model in able
            if (space := model.space) is not None and space in lacking
        }
        if rows:
            self.store.complete(image_id, pending.generation, rows)
