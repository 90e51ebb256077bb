"""The page over a real ingress and real retrievers, in this process: neither Ray nor a container is
started."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from cluster.jobs.duplicates.following import DuplicateFinder
from cluster.jobs.duplicates.proposers import HashProposer, LocalProposer
from deployments.http.application import make_app
from deployments.ingress.gateway import Gateway
from deployments.settings import IngressArgs
from indexes.duplicates.catalogue import followed_write, regroup
from indexes.duplicates.pairs import Pair, pair_writes
from indexes.store.base import ImageWrite, Space, Store
from models.registry import make_extractor
from models.types import FileFacts
from tests.conftest import LIGHT_LOCAL
from tests.deployments import served

RETRIEVERS = ("phash", "color", "local", "text")
WITHOUT_WEIGHTS = "global"
"""A retriever that is unavailable."""


@dataclass(frozen=True)
class Site:
    """A served page."""

    url: str
    gateway: Gateway

    def client(self, **headers: str) -> httpx.Client:
        """A client of the API."""
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, verify=False)


@contextmanager
def site(folder: Path, *retrievers: str, keys: tuple[str, ...] = ()) -> Iterator[Site]:
    """Serve the page and these retrievers; the store lies in the folder. With keys, every request
    of the API needs one of them."""
    store = f"lmdb:{folder / 'store'}"
    args = IngressArgs(store=store, listen=False, read_keys=keys, write_keys=keys, access_log="off")
    gateway = Gateway(args, "ambience")
    gateway.directory.complete = True
    with served.ended(), ThreadPoolExecutor(1) as thread_of_loop:
        # Where a browser is driven, its event loop runs in this thread.
        thread_of_loop.submit(asyncio.run, _meet(gateway, store, retrievers)).result()
        thread_of_loop.submit(asyncio.run, gateway.warm_up()).result()
        yield from _listening(gateway)


def _listening(gateway: Gateway) -> Iterator[Site]:
    config = uvicorn.Config(make_app(gateway), lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield Site(f"http://127.0.0.1:{listening.getsockname()[1]}", gateway)
    finally:
        server.should_exit = True
        thread.join()
        gateway.close()


async def _meet(gateway: Gateway, store: str, retrievers: tuple[str, ...]) -> None:
    for name in retrievers:
        args: dict[str, Any] = {"extractor": name}
        if name == "local":
            args["options"] = LIGHT_LOCAL
        if name == WITHOUT_WEIGHTS:
            args = {"extractor": "tint", "options": {"path": "none.npy"}}
        with served.with_test_extractors():
            handle = served.serve_here(name, {**args, "store": store})
            await served.until(handle, "unavailable" if name == WITHOUT_WEIGHTS else "ready")
        await served.join(gateway, name, handle)


def find_duplicates(site: Site) -> None:
    """Run the job that finds duplicates, by what `phash` and `local` of the site have extracted."""
    store = site.gateway.store
    phash, local = make_extractor("phash"), make_extractor("local", LIGHT_LOCAL)
    proposers = [
        HashProposer(Space("phash", phash.fingerprint), phash),
        LocalProposer(Space("local", local.fingerprint), local, {}, store),
    ]
    with ThreadPoolExecutor(1) as threads:
        DuplicateFinder(store, proposers, threads).run()


def plant_duplicates(store: Store, groups: int, jpegs: Sequence[bytes]) -> None:
    """Write pairs of images, 2n and 2n + 1, of which the second has half the sides of the first,
    and their groups, without extracting anything. Their previews are these pictures in turn."""
    for first in range(0, groups, 500):
        numbers = range(first, min(groups, first + 500))
        writes = [
            ImageWrite(
                2 * number + small,
                sha256=hashlib.sha256(b"%d %d" % (number, small)).hexdigest(),
                width=640 >> small,
                height=480 >> small,
                wanted=frozenset(),
                features={},
                preview=jpegs[number % len(jpegs)],
                facts=FileFacts("JPEG", 4_000_000 - 10 * number >> 2 * small),
            )
            for number in numbers
            for small in (0, 1)
        ]
        store.put_many(writes)
        pairs = [
            Pair(2 * number, 2 * number + 1, (one.sha256, other.sha256), "resize", "same", 0.99)
            for number, one, other in zip(numbers, writes[::2], writes[1::2], strict=True)
        ]
        at_once = pair_writes(pairs) | followed_write(store, store.head())
        regroup(store, [pair.a for pair in pairs], at_once)
