"""The directory of retrievers: discovery by application status, calls with deadlines.

No retriever is configured here. The directory follows the application statuses and asks an
application to describe itself when it appears, returns or changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus

from deployments.directory.entry import DirectoryEntry
from deployments.directory.sharded import ShardCall, ShardedSearch
from deployments.settings import planned_applications
from deployments.statuses import applications
from deployments.wire import (
    AnnotateAnswer,
    Description,
    ExtractAnswer,
    Kind,
    SearchAnswer,
    SearchRequest,
)
from models.errors import (
    AmbienceError,
    DeadlineExceeded,
    RetrieverUnavailable,
    StoreUnavailable,
    UnknownName,
)
from models.types import Features, Pixels

POLL_SECONDS = 1.0
DESCRIBE_SECONDS = 2.0
PROBE_SECONDS = 0.5
NO_REPLICA = "no replica answers"
NOT_DEPLOYED = "not deployed"

_BEGINNING = (ApplicationStatus.NOT_STARTED, ApplicationStatus.DEPLOYING)


class RetrieverDirectory:
    """Knows which retrievers and annotators there are, and calls them."""

    def __init__(
        self, own_application: str, active: Callable[[], Mapping[str, str]] = dict
    ) -> None:
        """`active` returns the fingerprint of the model that searches use, by the retriever's
        name."""
        self._own = own_application
        self._active = active
        self._last_active: Mapping[str, str] = {}
        self._entries: dict[str, DirectoryEntry] = {}
        self._turns = itertools.count(1)
        self.complete = False
        """Whether all applications of the configuration are known."""
        self.coming: frozenset[str] = frozenset()
        """Names of those that are not deployed yet."""
        self.tag: str | None = None
        """Only images with this tag exist for all that is asked through it; None: all do."""

    def limited_to(self, tag: str) -> RetrieverDirectory:
        """The directory for one request of a key that is limited to a tag; it does not follow what
        changes later."""
        limited = copy.copy(self)
        limited.tag = tag
        return limited

    def enabled(self, kind: Kind = "retriever") -> list[str]:
        """Names of all configured retrievers, or annotators, ready or not; sorted."""
        return sorted(entry.name for entry in self._entries.values() if entry.kind == kind)

    def wanted(self) -> list[str]:
        """Names of the retrievers that want features of every image, ready or not; sorted.

        Empty until all applications of the configuration are known, because an add would not know
        of later retrievers.
        """
        if not self.complete:
            return []
        return [name for name in self.enabled() if self._entries[name].of_pictures]

    def entry(self, name: str, kind: Kind = "retriever") -> DirectoryEntry:
        """The entry of a retriever, or annotator. Raises UnknownName, listing the known ones."""
        there = self.enabled(kind)
        if name not in there:
            raise UnknownName(f"no {kind} {name!r}; there are {', '.join(there)}")
        return self._entries[name]

    def annotators(self) -> list[DirectoryEntry]:
        """Entries of all configured annotators, ready or not."""
        return [self._entries[name] for name in self.enabled("annotator")]

    async def with_active_models(self, entries: Sequence[DirectoryEntry]) -> list[DirectoryEntry]:
        """Each entry under the model that searches use, looked up once for all, so that none mixes
        models.

        While the store can't be read, the last looked-up model is used.
        """
        if any(entry.next is not None for entry in entries):
            with contextlib.suppress(StoreUnavailable):
                self._last_active = await asyncio.to_thread(self._active)
        return [entry.with_fingerprint(self._last_active.get(entry.name)) for entry in entries]

    async def follow(self) -> None:
        """Follow the application statuses, for ever."""
        while True:
            # The controller is restarting, or not all applications are there yet.
            with contextlib.suppress(RayError, RayServeException, RetrieverUnavailable):
                await self.refresh()
            await asyncio.sleep(POLL_SECONDS)

    async def refresh(self) -> None:
        """Read the statuses once, and begin to describe the entries that need it.

        It waits at most POLL_SECONDS: one that does not answer must not delay the others.
        """
        # Before looking: the last may be deployed meanwhile.
        planned = await asyncio.to_thread(planned_applications)
        apps = await asyncio.to_thread(_statuses)
        apps.pop(self._own, None)
        self.coming = frozenset(planned) - set(apps)
        for gone in set(self._entries) - set(apps) - self.coming:
            del self._entries[gone]
        for name in self.coming:
            plan = planned[name]
            self._entries.setdefault(name, DirectoryEntry(name, plan.kind, plan.of_pictures))
        for name, seen in apps.items():
            self._entries.setdefault(name, DirectoryEntry(name)).update_from_status(*seen)
        self.complete = True
        asked = [
            asyncio.ensure_future(self._probe(self._entries[name]))
            for name in apps
            if self._entries[name].needs_describe
        ]
        if asked:
            await asyncio.wait(asked, timeout=POLL_SECONDS)

    async def refresh_entry(self, entry: DirectoryEntry) -> None:
        """Refresh an entry that has just failed: it may have changed, or have another number of
        shards."""
        if entry.layouts or entry.unreachable_reason == NOT_DEPLOYED:
            with contextlib.suppress(RayError, RayServeException, RetrieverUnavailable):
                await self.refresh()
        await self.describe(entry)

    async def describe(self, entry: DirectoryEntry) -> Description | None:
        """Ask an application to describe itself. Returns None, with the reason recorded, without an
        answer."""
        main = entry.current or entry
        if main.layouts:
            shards = [shard for layout in main.layouts.values() for shard in layout]
            await asyncio.gather(*(self.describe(shard) for shard in shards))
            main.choose_layout()
            seen = main if entry is main else main.next
            return (
                seen.description if seen is not None and seen.unreachable_reason is None else None
            )
        try:
            of_tag = [self.tag] if self.tag is not None and main.kind == "retriever" else []
            answer = await self._call(main, "describe", DESCRIBE_SECONDS, *of_tag)
        except AmbienceError as exc:
            for model in {id(one): one for one in (entry, *main.models)}.values():
                model.unreachable_reason = str(exc)
            return None
        assert isinstance(answer, Description)
        main.update_from_description(answer)
        return answer if entry is main else answer.next

    async def describe_all(self) -> list[DirectoryEntry]:
        """Entries of all retrievers, then of all annotators, described just now."""
        enabled = [self._entries[name] for name in self.enabled()] + self.annotators()
        deployed = [entry for entry in enabled if entry.name not in self.coming]
        await asyncio.gather(*(self.describe(entry) for entry in deployed))
        return enabled

    async def describe_replicas(self, entry: DirectoryEntry) -> list[list[Description | None]]:
        """Current descriptions of each replica of a retriever, by shard.

        None for a replica that does not answer; an empty list for a shard that can't be asked.
        """
        shards = entry.shards or [entry]
        return await asyncio.gather(*(self._in_replicas(shard.handle) for shard in shards))

    async def _in_replicas(self, handle: DeploymentHandle[Any] | None) -> list[Description | None]:
        if handle is None:
            return []
        asked = handle.broadcast("describe")
        try:
            answers = await asked.results_async(timeout_s=DESCRIBE_SECONDS, return_exceptions=True)
        except (RayError, RayServeException, TimeoutError):
            return []
        return [answer if isinstance(answer, Description) else None for answer in answers]

    async def search(
        self, entry: DirectoryEntry, request: SearchRequest, partial: bool = False
    ) -> SearchAnswer:
        """Search. Raises RetrieverUnavailable, DeadlineExceeded, or the retriever's own error.

        A shard that was known not to answer is named as missing in the answer. A shard that fails
        now is named so only if `partial` is true.
        """
        request = self._limited(request)
        if len(entry.shards) > 1:
            return await self._search_shards(entry, request, partial)
        answer = await self._call(entry, "search", request.deadline, request)
        assert isinstance(answer, SearchAnswer)
        return answer

    async def _search_shards(
        self, entry: DirectoryEntry, request: SearchRequest, partial: bool
    ) -> SearchAnswer:
        def asking(shard: DirectoryEntry) -> ShardCall:
            return lambda method, asked: self._call(shard, method, asked.deadline, asked)

        shards = self._rotated(entry)
        up = {shard.name: asking(shard) for shard in shards if shard.reason is None}
        missing = {shard.name: shard.reason for shard in shards if shard.reason is not None}
        if not up or entry.description is None:
            raise RetrieverUnavailable(entry.reason or NO_REPLICA)
        search = ShardedSearch(up, missing, partial)
        return await search.search(entry.description.searched_by, request)

    def _limited(self, request: SearchRequest) -> SearchRequest:
        return request if self.tag is None else replace(request, tag=self.tag)

    def _rotated(self, entry: DirectoryEntry) -> list[DirectoryEntry]:
        """The shards, each time beginning with another one."""
        first = next(self._turns) % len(entry.shards)
        return entry.shards[first:] + entry.shards[:first]

    async def extract(
        self, entry: DirectoryEntry, pixels: Pixels, deadline: float
    ) -> ExtractAnswer:
        """Extract features of one view. Raises like `search`."""
        answer = await self._call(entry, "extract", deadline, pixels, entry.fingerprint or None)
        assert isinstance(answer, ExtractAnswer)
        return answer

    async def features(self, entry: DirectoryEntry, request: SearchRequest) -> Sequence[Features]:
        """Features of a query under its variants. Raises like `search`, and ImageNotFound."""
        answer = await self._call(entry, "features", request.deadline, self._limited(request))
        assert isinstance(answer, SearchRequest)
        return answer.features or []

    async def annotate(
        self, entry: DirectoryEntry, pixels: Pixels, deadline: float
    ) -> AnnotateAnswer:
        """Annotate one view. Raises like `search`."""
        answer = await self._call(entry, "annotate", deadline, pixels)
        assert isinstance(answer, AnnotateAnswer)
        return answer

    async def wait_ready(self, name: str, until: float) -> DirectoryEntry:
        """Wait for a retriever until a monotonic time. Raises RetrieverUnavailable."""
        while True:
            entry = self._entries.get(name)
            if entry is not None and entry.reason is None:
                return entry
            if time.monotonic() >= until:
                reason = entry.reason if entry is not None else NOT_DEPLOYED
                raise RetrieverUnavailable(f"{name}: {reason}")
            await asyncio.sleep(0.05)
            if entry is not None and entry.reason is not None:
                await self.describe(entry)

    async def _call(self, entry: DirectoryEntry, method: str, seconds: float, *payload: Any) -> Any:
        """Call a method of an application; of a split retriever, of any shard."""
        if entry.shards:
            shards = self._rotated(entry)
            entry = next((shard for shard in shards if shard.reason is None), shards[0])
        current = entry.current or entry
        call: asyncio.Future[Any] | None = None
        try:
            if current.handle is None:
                current.handle = await asyncio.to_thread(_handle, current)
            call = asyncio.ensure_future(_answer(current.handle, method, payload))
            answer = await self._with_probe(entry, call, seconds, probe=method != "describe")
        except (KeyError, DeploymentUnavailableError) as exc:
            current.handle, entry.unreachable_reason = None, NOT_DEPLOYED
            raise RetrieverUnavailable(NOT_DEPLOYED) from exc
        except (RayError, RayServeException) as exc:
            entry.unreachable_reason = NO_REPLICA
            raise RetrieverUnavailable(NO_REPLICA) from exc
        finally:
            if call is not None and not call.done():
                call.cancel()
        if isinstance(answer, AmbienceError):
            raise answer
        return answer

    async def _with_probe(
        self, entry: DirectoryEntry, call: asyncio.Future[Any], seconds: float, probe: bool
    ) -> Any:
        """The call's answer. It probes the replica, because Serve would hold a call to a dead
        replica until another has started.

        A replica works in threads, so a live one describes itself at once, however busy it is.
        """
        until = time.monotonic() + seconds
        while True:
            left = until - time.monotonic()
            done, _ = await asyncio.wait(
                {call}, timeout=min(left, PROBE_SECONDS) if probe else left
            )
            if done:
                return call.result()
            # Timers may fire slightly early, and a probe must never wait for itself.
            if not probe or time.monotonic() >= until:
                raise DeadlineExceeded(f"no answer within {seconds:g} s")
            if await self._probe(entry) is None and not call.done():
                raise RetrieverUnavailable(entry.unreachable_reason or NO_REPLICA)

    async def _probe(self, entry: DirectoryEntry) -> Description | None:
        """One `describe` at a time, shared by all waiting calls."""
        if entry.probe is None or entry.probe.done():
            entry.probe = asyncio.ensure_future(self.describe(entry))
        return await asyncio.shield(entry.probe)


def _handle(entry: DirectoryEntry) -> DeploymentHandle[Any]:
    if entry.deployment is None:
        return serve.get_app_handle(entry.name)
    return serve.get_deployment_handle(*entry.deployment)


class _Seen(NamedTuple):
    """What Serve says of an application."""

    deployments: list[str]
    status: str
    replicas: int


def _statuses() -> dict[str, _Seen]:
    """What Serve says of each application. Raises RetrieverUnavailable while one is being
    built."""
    return {
        name: _Seen(_deployments_of(name, app), str(app["status"]), _running_replicas(app))
        for name, app in applications().items()
    }


def _running_replicas(application: Mapping[str, Any]) -> int:
    return sum(
        replica["state"] == "RUNNING"
        for deployment in application["deployments"].values()
        for replica in deployment.get("replicas", ())
    )


def _deployments_of(name: str, application: Mapping[str, Any]) -> list[str]:
    deployments = application["deployments"]
    if not deployments and application["status"] in _BEGINNING:
        # An add that did not know of all kinds would never get features of the others.
        raise RetrieverUnavailable(f"{name} is being built")
    return list(deployments)


async def _answer(handle: DeploymentHandle[Any], method: str, payload: tuple[Any, ...]) -> Any:
    return await getattr(handle, method).remote(*payload)
