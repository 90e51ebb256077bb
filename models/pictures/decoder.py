"""Decoding in a service: threads for formats whose decoders always terminate, killable child
processes for the rest."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import ParamSpec, TypeVar, overload

from PIL import Image

from models.machine import cores
from models.pictures.decoding import Header, Picture, read_header
from models.pictures.formats import needs_child
from models.pictures.limits import DecodeLimits
from models.pictures.pixel_budget import PixelBudget
from models.pictures.sandbox import Sandbox

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3). 32 MiB is the largest mmap threshold that glibc accepts."""

T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A header whose decode must wait, because the pixel budget had no room or because a child is
    to decode it."""

    header: Header


class Decoder:
    """Owns the threads, the child processes and the pixel budget of one process; `close` ends
    them."""

    def __init__(self, limits: DecodeLimits | None = None) -> None:
        self.limits = limits or DecodeLimits()
        # Pillow finds its plugins on first use, which is not thread-safe.
        Image.init()
        _keep_freed_memory()
        self._budget = PixelBudget(self.limits.in_flight_pixels)
        threads = self.limits.threads or cores()
        self._threads = ThreadPoolExecutor(threads, "decode")
        self._child_threads = ThreadPoolExecutor(self.limits.children, "decode-child")
        self._sandboxes = [Sandbox(self.limits) for _ in range(self.limits.children)]
        self._idle: SimpleQueue[Sandbox] = SimpleQueue()
        for sandbox in self._sandboxes:
            self._idle.put(sandbox)

    @property
    def child_pids(self) -> list[int]:
        """Process ids of the running children."""
        return [sandbox.pid for sandbox in self._sandboxes if sandbox.pid is not None]

    @overload
    async def decode(self, data: bytes) -> Picture: ...
    @overload
    async def decode(self, data: bytes, then: Callable[[Picture], T]) -> T: ...
    async def decode(self, data: bytes, then: Callable[[Picture], T] | None = None) -> Picture | T:
        """Decode, then apply `then` in a decoding thread; `then` is for cheap extraction.

        Raises what `models.pictures.decoding.decode` and `then` raise.
        """
        if needs_child(data):
            return await self._apart(data, then)
        begun = await self.run(self._begin, data, then)
        if not isinstance(begun, _Waiting):
            return begun
        if begun.header.needs_child:
            return await self._apart(data, then)
        return await self._resume(begun.header, then)

    def decode_blocking(self, data: bytes) -> Picture:
        """Decode in the calling thread, for batch workers."""
        if needs_child(data):
            return self._decode_in_child(data)
        header = read_header(data, self.limits)
        if header.needs_child:
            return self._decode_in_child(data)
        self._budget.acquire(header.cost).result()
        try:
            return header.decode()
        finally:
            self._budget.release(header.cost)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run short CPU work, such as cheap extraction, in a decoding thread."""
        return await asyncio.wrap_future(self._threads.submit(work, *args, **kwargs))

    def run_all(self, jobs: Sequence[Callable[[], T]]) -> list[T]:
        """Results of short jobs submitted by a decoding thread; idle threads take a share.

        Jobs that no other thread has begun run here, because waiting for them could deadlock.
        """
        begun = [self._threads.submit(job) for job in jobs[1:]]
        first = [job() for job in jobs[:1]]
        rest = zip(jobs[1:], begun, strict=True)
        return first + [job() if future.cancel() else future.result() for job, future in rest]

    def close(self) -> None:
        """Kill the children and stop the threads. Queued work is cancelled, decodes in children
        fail."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._child_threads.shutdown(wait=False, cancel_futures=True)
        for sandbox in self._sandboxes:
            sandbox.close()

    def _begin(self, data: bytes, then: Callable[[Picture], T] | None) -> Picture | T | _Waiting:
        header = read_header(data, self.limits)
        cost = header.cost
        if header.needs_child or not self._budget.try_acquire(cost):
            return _Waiting(header)
        try:
            picture = header.decode()
        finally:
            self._budget.release(cost)
        return picture if then is None else then(picture)

    async def _resume(self, header: Header, then: Callable[[Picture], T] | None) -> Picture | T:
        """Wait for room in the budget without holding a thread, then decode."""
        cost = header.cost
        ticket = self._budget.acquire(cost)
        try:
            await asyncio.wrap_future(ticket)
            job: Future[Picture] = self._threads.submit(header.decode)
        except (asyncio.CancelledError, RuntimeError):
            if not ticket.cancel():
                self._budget.release(cost)
            raise
        # The thread continues when the request is cancelled, so the pixels are released only
        # when the job ends.
        job.add_done_callback(lambda _: self._budget.release(cost))
        picture = await asyncio.wrap_future(job)
        return picture if then is None else await self.run(then, picture)

    async def _apart(self, data: bytes, then: Callable[[Picture], T] | None) -> Picture | T:
        decoded = self._child_threads.submit(self._decode_in_child, data)
        picture = await asyncio.wrap_future(decoded)
        return picture if then is None else await self.run(then, picture)

    def _decode_in_child(self, data: bytes) -> Picture:
        sandbox = self._idle.get()
        try:
            return sandbox.decode(data, self._budget)
        finally:
            self._idle.put(sandbox)


def _keep_freed_memory() -> None:
    """Let the C library reuse a picture's memory instead of returning it to the kernel each time.

    Getting 30 MB from the kernel page by page costs up to half as much as the decode. Does nothing
    where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 128 << 20)
