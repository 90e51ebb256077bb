"""Bodies of requests: read whole before a request takes a place, in bounded time and memory."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from starlette.types import Message, Receive

from deployments.settings import IngressArgs
from models.errors import AmbienceError, Overloaded, PictureTooLarge

FORM_OVERHEAD_BYTES = 2**20
GRACE_SECONDS = 5.0
"""Seconds that a body may take before its least rate holds."""
SMALL_BYTES = 2**20
"""Larger bodies leave a quarter of the budget to those that are not: large uploads never keep
searches out."""
YIELD_SECONDS, YIELD_RATE = 0.1, 2**20
"""When a limit is reached, the slowest body gives way to a new one, if it has been arriving for so
many seconds at less than so many bytes a second."""


class SlowUpload(AmbienceError):
    """The body did not arrive in time; it would hold its memory for ever."""

    status = 408
    title = "Request timeout"


@dataclass(eq=False, slots=True)
class Upload:
    """A body in memory, arriving or whole."""

    client: str
    reserved: int
    """Bytes of the budget that it holds: those announced, or those that have arrived."""
    began: float
    timer: asyncio.Timeout
    received: int = 0
    messages: deque[Message] = field(default_factory=deque)
    displaced: bool = False

    def is_late(self, now: float) -> bool:
        """Whether it has been arriving for longer than bodies do that are not slow."""
        return now - self.began > YIELD_SECONDS

    def rate(self, now: float) -> float:
        """Bytes a second since its begin."""
        return self.received / (now - self.began)


class Receiver:
    """Reads bodies, of all requests together within `max_receiving_bytes`."""

    def __init__(self, args: IngressArgs) -> None:
        self.args = args
        self.held = 0
        """Bytes of the budget that are in use."""
        self._arriving: set[Upload] = set()

    async def read(self, client: str, announced: int | None, receive: Receive) -> Upload:
        """The whole body of a request; `close` it when the request ends.

        Raises PictureTooLarge, SlowUpload, or Overloaded where there is no room, before anything is
        read if the body's length was announced.
        """
        self._check_size(announced or 0)
        now = time.monotonic()
        async with asyncio.timeout(None) as timer:
            upload = Upload(client, 0, now, timer)
            self._make_room_of(client)
            self._reserve(upload, announced or 0)
            self._arriving.add(upload)
            try:
                await self._fill(upload, receive)
            except BaseException as exc:
                self.close(upload)
                if isinstance(exc, asyncio.CancelledError) and timer.expired():
                    raise self._given_up(upload) from None
                raise
            finally:
                self._arriving.discard(upload)
        return upload

    def close(self, upload: Upload) -> None:
        """Return what the body holds of the budget."""
        self.held -= upload.reserved
        upload.reserved = 0
        upload.messages.clear()

    async def _fill(self, upload: Upload, receive: Receive) -> None:
        more = True
        while more:
            upload.timer.reschedule(self._due(upload))
            message = await receive()
            if upload.displaced:
                raise self._given_up(upload)
            if message["type"] != "http.request":
                raise SlowUpload("the client left before the body was whole")
            upload.received += len(message.get("body", b""))
            self._check_size(upload.received)
            if upload.received > upload.reserved:
                self._reserve(upload, upload.received - upload.reserved)
            upload.messages.append(message)
            more = message.get("more_body", False)

    def _due(self, upload: Upload) -> float:
        """When the next part must be there, in time of the event loop."""
        allowed = GRACE_SECONDS + upload.received / self.args.min_upload_rate
        spent = time.monotonic() - upload.began
        left = min(allowed, self.args.upload_deadline) - spent
        return asyncio.get_running_loop().time() + left

    def _given_up(self, upload: Upload) -> AmbienceError:
        if upload.displaced:
            return Overloaded("other requests needed the place of this slow body; try again")
        if time.monotonic() - upload.began >= self.args.upload_deadline:
            limit = self.args.upload_deadline
            return SlowUpload(f"the body did not arrive within {limit:g} s")
        return SlowUpload(
            f"the body arrived at less than {self.args.min_upload_rate} bytes a second"
        )

    def _make_room_of(self, client: str) -> None:
        """Raises Overloaded when as many bodies of this client are arriving as may.

        Those that have just begun don't count: most are whole at once, and none of them waits for
        the slow ones of others behind the same address.
        """
        limit, now = self.args.max_uploads_per_client, time.monotonic()
        theirs = {one for one in self._arriving if one.client == client and one.is_late(now)}
        while len(theirs) >= limit:
            slowest = self._displace(theirs)
            if slowest is None:
                raise Overloaded(f"{limit} bodies of this client are arriving; try again later")
            theirs.discard(slowest)

    def _reserve(self, upload: Upload, size: int) -> None:
        limit = self.args.max_receiving_bytes
        if upload.reserved + size > SMALL_BYTES:
            limit -= limit // 4
        while self.held + size > limit:
            if self._displace(self._arriving - {upload}) is None:
                raise Overloaded("too many bytes are being received; try again in a second")
        self.held += size
        upload.reserved += size

    def _displace(self, uploads: Iterable[Upload]) -> Upload | None:
        """Give up the slowest of these bodies, if it is slow; return it."""
        now = time.monotonic()
        late = (upload for upload in uploads if upload.is_late(now))
        slowest = min(late, key=lambda upload: upload.rate(now), default=None)
        if slowest is None or slowest.rate(now) >= YIELD_RATE:
            return None
        slowest.displaced = True
        slowest.timer.reschedule(0)
        self._arriving.discard(slowest)
        self.close(slowest)
        return slowest

    def _check_size(self, size: int) -> None:
        if size > self.args.max_upload_bytes + FORM_OVERHEAD_BYTES:
            limit = self.args.max_upload_bytes / 2**20
            raise PictureTooLarge(f"image: at most {limit:g} MiB", "image")


def replay(upload: Upload, receive: Receive) -> Receive:
    """A `receive` that gives the body, and then what follows it: the client's leaving."""

    async def replayed() -> Message:
        return upload.messages.popleft() if upload.messages else await receive()

    return replayed
