"""The ingress's view of the retrievers: discovery by status, calls with deadlines.

The ingress lists no retriever. It follows the application statuses and asks an application to
describe itself when it appears, returns or changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.context import _get_global_client
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus

from deployments.settings import all_deployed
from deployments.wire import (
    AnnotateAnswer,
    Description,
    ExtractAnswer,
    Kind,
    SearchAnswer,
    SearchRequest,
)
from models.base import Extractor, make_extractor
from models.errors import (
    AmbienceError,
    DeadlineExceeded,
    RetrieverUnavailable,
    StoreUnavailable,
    UnknownName,
)
from models.types import Pixels

POLL_SECONDS = 1.0
DESCRIBE_SECONDS = 2.0
PROBE_SECONDS = 0.5
NO_REPLICA = "no replica answers"
WORDS_ONLY = "TextRetriever"
"""Deployment of a retriever that has no features of pictures: told before it answers."""

_BEGINNING = (ApplicationStatus.NOT_STARTED, ApplicationStatus.DEPLOYING)


@dataclass(slots=True)
class Known:
    """One application as last seen."""

    name: str
    kind: Kind = "retriever"
    of_pictures: bool = True
    """Whether pictures have features of it; else it searches annotations, by words only."""
    handle: DeploymentHandle[Any] | None = None
    description: Description | None = None
    extractor: Extractor | None = None
    """For queries extracted in the ingress."""
    down: str | None = "starting"
    """Why it is not asked now; None when it is."""
    status: str = ""
    probe: asyncio.Future[Description | None] | None = None
    """A `describe` under way, for all calls that wait longer than usual."""
    changed: bool = True
    """Its status has changed since it was last described."""
    next: Known | None = None
    """The same application under its next model, where it has one."""

    @property
    def models(self) -> list[Known]:
        """Itself, and the same under its next model."""
        return [self] if self.next is None else [self, self.next]

    @property
    def fingerprint(self) -> str:
        """Of its model; empty until that is loaded."""
        return self.description.fingerprint if self.description is not None else ""

    def using(self, fingerprint: str | None) -> Known:
        """The one of its models that has this fingerprint; its own where that is neither's."""
        if self.next is None or fingerprint in (None, self.fingerprint):
            return self
        may_be = self.next.fingerprint in (fingerprint, "" if self.fingerprint else None)
        return self.next if may_be else self

    @property
    def reason(self) -> str | None:
        """Why it can't answer, or None."""
        if self.down is not None:
            return self.down
        assert self.description is not None
        if self.description.state == "ready":
            return None
        return self.description.reason or self.description.state


class Retrievers:
    """Knows which retrievers there are and asks them."""

    def __init__(
        self, own_application: str, active: Callable[[], Mapping[str, str]] = dict
    ) -> None:
        """`active` says which model's fingerprint searches of a retriever use, by its name."""
        self._own = own_application
        self._active = active
        self._last_active: Mapping[str, str] = {}
        self._known: dict[str, Known] = {}
        self.complete = False
        """Whether all applications have been deployed and seen."""

    def enabled(self, kind: Kind = "retriever") -> list[str]:
        """Names of all retrievers, or annotators, of the configuration, ready or not; sorted."""
        return sorted(known.name for known in self._known.values() if known.kind == kind)

    def wanted(self) -> list[str]:
        """Names of the retrievers that want features of every picture, ready or not; sorted.

        None before all of the service is deployed: an add would not know of what comes.
        """
        if not self.complete:
            return []
        return [name for name in self.enabled() if self._known[name].of_pictures]

    def known(self, name: str, kind: Kind = "retriever") -> Known:
        """One retriever, or annotator; raises UnknownName, listing the known ones."""
        there = self.enabled(kind)
        if name not in there:
            raise UnknownName(f"no {kind} {name!r}; there are {', '.join(there)}")
        return self._known[name]

    def annotators(self) -> list[Known]:
        """All annotators of the configuration, ready or not."""
        return [self._known[name] for name in self.enabled("annotator")]

    async def searched(self, knowns: Sequence[Known]) -> list[Known]:
        """Each under the model that searches use: one look for all, so that none mixes models.

        While the store can't be read it is the model of the last look.
        """
        if any(known.next is not None for known in knowns):
            with contextlib.suppress(StoreUnavailable):
                self._last_active = await asyncio.to_thread(self._active)
        return [known.using(self._last_active.get(known.name)) for known in knowns]

    async def follow(self) -> None:
        """Keep up with the applications, for ever."""
        while True:
            # The controller is restarting, or not all applications are there yet.
            with contextlib.suppress(RayError, RayServeException, RetrieverUnavailable):
                await self.refresh()
            await asyncio.sleep(POLL_SECONDS)

    async def refresh(self) -> None:
        """One look at the statuses; asks who needs asking."""
        complete = await asyncio.to_thread(all_deployed)  # Before looking: it may end meanwhile.
        apps = await asyncio.to_thread(_statuses)
        apps.pop(self._own, None)
        for gone in set(self._known) - set(apps):
            del self._known[gone]
        for name, (deployment, status) in apps.items():
            known = self._known.setdefault(name, Known(name))
            known.kind = "annotator" if deployment == "Annotator" else "retriever"
            known.of_pictures = deployment != WORDS_ONLY
            if status != known.status:
                known.status, known.changed = status, True
        self.complete = self.complete or complete
        await asyncio.gather(
            *(self.describe(known) for known in self._known.values() if _needs_asking(known))
        )

    async def describe(self, known: Known) -> Description | None:
        """Ask one application what it is now; None, with the reason noted, if it doesn't answer."""
        main = self._known.get(known.name, known)
        try:
            answer = await self._call(main, "describe", DESCRIBE_SECONDS)
        except AmbienceError as exc:
            for model in {id(one): one for one in (known, *main.models)}.values():
                model.down = str(exc)
            return None
        assert isinstance(answer, Description)
        main.next = _next_of(main, answer)
        for model, said in zip(main.models, (answer, answer.next), strict=False):
            assert said is not None
            if model.fingerprint != said.fingerprint or model.description is None:
                model.extractor = _extractor_for(said)
            model.description, model.down, model.changed = said, None, False
        return answer if known is main else answer.next

    async def descriptions(self) -> list[Known]:
        """All retrievers, then all annotators, asked just now."""
        enabled = [self._known[name] for name in self.enabled()] + self.annotators()
        await asyncio.gather(*(self.describe(known) for known in enabled))
        return enabled

    async def in_all_replicas(self, known: Known) -> list[Description | None]:
        """What each replica of a retriever says of itself now; None for one that does not answer.

        Nothing where the application can't be asked.
        """
        if known.handle is None:
            return []
        asked = known.handle.broadcast("describe")
        try:
            answers = await asked.results_async(timeout_s=DESCRIBE_SECONDS, return_exceptions=True)
        except (RayError, RayServeException, TimeoutError):
            return []
        return [answer if isinstance(answer, Description) else None for answer in answers]

    async def search(self, known: Known, request: SearchRequest) -> SearchAnswer:
        """Raises RetrieverUnavailable, DeadlineExceeded, or what the retriever refused with."""
        answer = await self._call(known, "search", request.deadline, request)
        assert isinstance(answer, SearchAnswer)
        return answer

    async def extract(self, known: Known, pixels: Pixels, deadline: float) -> ExtractAnswer:
        """Features of one view; raises like `search`."""
        answer = await self._call(known, "extract", deadline, pixels, known.fingerprint or None)
        assert isinstance(answer, ExtractAnswer)
        return answer

    async def annotate(self, known: Known, pixels: Pixels, deadline: float) -> AnnotateAnswer:
        """What an annotator says of one view; raises like `search`."""
        answer = await self._call(known, "annotate", deadline, pixels)
        assert isinstance(answer, AnnotateAnswer)
        return answer

    async def wait_ready(self, name: str, until: float) -> Known:
        """Wait for a retriever until a monotonic time; raises RetrieverUnavailable."""
        while True:
            known = self._known.get(name)
            if known is not None and known.reason is None:
                return known
            if time.monotonic() >= until:
                reason = known.reason if known is not None else "not deployed"
                raise RetrieverUnavailable(f"{name}: {reason}")
            await asyncio.sleep(0.05)
            if known is not None and known.reason is not None:
                await self.describe(known)

    async def _call(self, known: Known, method: str, seconds: float, *payload: Any) -> Any:
        call: asyncio.Future[Any] | None = None
        try:
            if known.handle is None:
                known.handle = await asyncio.to_thread(serve.get_app_handle, known.name)
            call = asyncio.ensure_future(_answer(known.handle, method, payload))
            answer = await self._watched(known, call, seconds, probe=method != "describe")
        except (KeyError, DeploymentUnavailableError) as exc:
            known.handle, known.down = None, "not deployed"
            raise RetrieverUnavailable(known.down) from exc
        except (RayError, RayServeException) as exc:
            known.down = NO_REPLICA
            raise RetrieverUnavailable(NO_REPLICA) from exc
        finally:
            if call is not None and not call.done():
                call.cancel()
        if isinstance(answer, AmbienceError):
            raise answer
        return answer

    async def _watched(
        self, known: Known, call: asyncio.Future[Any], seconds: float, probe: bool
    ) -> Any:
        """The call's answer; Serve would hold a call to a dead replica until another has started.

        A replica works in threads, so one that lives describes itself at once, however busy.
        """
        until = time.monotonic() + seconds
        while True:
            left = until - time.monotonic()
            done, _ = await asyncio.wait(
                {call}, timeout=min(left, PROBE_SECONDS) if probe else left
            )
            if done:
                return call.result()
            # Timers may fire a little early; a probe must never come to wait for itself.
            if not probe or time.monotonic() >= until:
                raise DeadlineExceeded(f"no answer within {seconds:g} s")
            if await self._probed(known) is None and not call.done():
                raise RetrieverUnavailable(known.down or NO_REPLICA)

    async def _probed(self, known: Known) -> Description | None:
        """One `describe` at a time for all calls that wait."""
        if known.probe is None or known.probe.done():
            known.probe = asyncio.ensure_future(self.describe(known))
        return await asyncio.shield(known.probe)


def _statuses() -> dict[str, tuple[str, str]]:
    """Deployment and status by application; raises RetrieverUnavailable while one is being built.

    `serve.status` builds the whole schema from this dict: 75 ms in which no request gets on.
    """
    client = _get_global_client()
    assert client is not None  # It raises instead.
    applications = client.get_serve_details()["applications"]
    return {
        name: (_deployment_of(name, app), str(app["status"])) for name, app in applications.items()
    }


def _deployment_of(name: str, application: Mapping[str, Any]) -> str:
    deployments = application["deployments"]
    if not deployments and application["status"] in _BEGINNING:
        # An add that did not know of all kinds would leave some out for ever.
        raise RetrieverUnavailable(f"{name} is being built")
    return next(iter(deployments), "")


async def _answer(handle: DeploymentHandle[Any], method: str, payload: tuple[Any, ...]) -> Any:
    return await getattr(handle, method).remote(*payload)


def _needs_asking(known: Known) -> bool:
    return known.changed or any(model.reason is not None for model in known.models)


def _next_of(known: Known, description: Description) -> Known | None:
    """A retriever's next model, as it was known or anew."""
    if description.next is None:
        return None
    return known.next or Known(known.name, of_pictures=known.of_pictures, handle=known.handle)


def _extractor_for(description: Description) -> Extractor | None:
    if description.place != "ingress" or description.kind != "retriever":
        return None
    extractor = make_extractor(description.extractor, description.options)
    extractor.load()
    return extractor
