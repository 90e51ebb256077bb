"""Run writes, searches and failures together for minutes: `python -m tests.soak --minutes 15`.

Writers add, replace and delete images, and searchers query them. Meanwhile replicas are killed,
applications are redeployed, and the store's server, if it has one, is killed, in turn. At any
time, an acknowledged image must be found and a deleted one must not, unless the answer says that
it lacks something. At the end, the list of images and a sample of answers are compared with a
recomputation from what was acknowledged. The exit status is 1 if anything was lost or wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import yaml

from cluster.service.data_folder import service_processes
from indexes.base import Hit, Index, Query
from indexes.registry import make_index
from models.pictures.decoding import decode
from models.registry import make_extractor
from tests.conftest import AMBIENCE, Service, light_config, start_service, stop_service
from tests.drawing import jpeg
from tests.postgres_server import PostgresServer

WRITERS, SEARCHERS = 2, 2
IDS = 150
"""Number of ids of each writer: few, so that ids are used again."""
DISTURBANCE_SECONDS = 20.0
"""Seconds between two disturbances."""
AWAY_SECONDS = 3.0
"""Seconds for which the store's server stays down."""
SETTLE_SECONDS = 240.0
RETRIEVERS = ("phash", "color", "local")
COMPARED = 40
"""Number of queries compared at the end for each retriever."""


@dataclass(frozen=True, slots=True)
class ExpectedImage:
    """What an id holds: the seed of a picture, or None if it is deleted."""

    seed: int | None
    certain: bool
    """Whether this was acknowledged and no other write has begun since."""
    since: float
    """Monotonic time at which the last write began or was acknowledged."""


@dataclass
class Ledger:
    """What was acknowledged, by id, and what was wrong."""

    held: dict[int, ExpectedImage] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, image_id: int) -> None:
        with self.lock:
            before = self.held.get(image_id)
            seed = before.seed if before is not None else None
            self.held[image_id] = ExpectedImage(seed, False, time.monotonic())

    def done(self, image_id: int, seed: int | None) -> None:
        with self.lock:
            self.held[image_id] = ExpectedImage(seed, True, time.monotonic())

    def settled(self) -> dict[int, ExpectedImage]:
        with self.lock:
            return {at: one for at, one in self.held.items() if one.certain}

    def count(self, what: str) -> None:
        with self.lock:
            self.counts[what] += 1


def body(seed: int) -> bytes:
    """Return a small JPEG with enough texture for keypoints."""
    return jpeg(seed, 320, 240)


def write(ledger: Ledger, url: str, first_id: int, seed: int, stop: threading.Event) -> None:
    """Write one image after another, retrying each write until it is acknowledged."""
    dice = random.Random(seed)
    with httpx.Client(base_url=url, timeout=30) as client:
        while not stop.is_set():
            image_id = first_id + dice.randrange(IDS)
            picture = dice.randrange(10**6) if dice.random() < 0.75 else None
            ledger.begin(image_id)
            while not _acknowledged(client, image_id, picture):
                ledger.count("writes tried again")
                time.sleep(0.2)
            ledger.done(image_id, picture)
            ledger.count("adds" if picture is not None else "deletes")


def _acknowledged(client: httpx.Client, image_id: int, picture: int | None) -> bool:
    path = f"/v1/images/{image_id}"
    try:
        if picture is None:
            answer = client.delete(path)
        else:
            answer = client.put(path, files={"image": body(picture)})
    except httpx.HTTPError:
        return False
    if answer.status_code not in (200, 201, 204, 503):
        raise AssertionError(f"a write got {answer.status_code}: {answer.text[:300]}")
    return answer.status_code != 503


def search(ledger: Ledger, url: str, seed: int, stop: threading.Event) -> None:
    """Search for images, and judge answers by those that are settled before and after them."""
    dice = random.Random(seed)
    with httpx.Client(base_url=url, timeout=60) as client:
        while not stop.is_set():
            before = ledger.settled()
            if not before:
                time.sleep(0.1)
                continue
            image_id = dice.choice(sorted(before))
            picture = before[image_id].seed
            query = picture if picture is not None else dice.randrange(10**6)
            try:
                answer = client.post("/v1/search", files={"image": body(query)})
            except httpx.HTTPError:
                ledger.count("searches without an answer")
                continue
            ledger.count(f"searches answered {answer.status_code}")
            if answer.status_code not in (200, 503):
                ledger.wrong.append(f"a search got {answer.status_code}: {answer.text[:300]}")
            if answer.status_code == 200 and not _excused(answer):
                found = {hit["image_id"] for hit in answer.json()["hits"]}
                _judge(ledger, before, image_id, found)


def _excused(answer: httpx.Response) -> bool:
    """Return whether the answer itself says that it is stale or lacks phash."""
    return "X-Ambience-Stale" in answer.headers or "phash" in answer.headers.get(
        "X-Ambience-Missing", ""
    )


def _judge(ledger: Ledger, before: dict[int, ExpectedImage], asked: int, found: set[int]) -> None:
    after = ledger.settled()
    quiet = {at for at, one in before.items() if after.get(at) == one}
    ledger.count("answers judged")
    gone = {at for at in found & quiet if before[at].seed is None}
    if gone:
        ledger.wrong.append(f"deleted images {sorted(gone)} were found")
    if asked in quiet and before[asked].seed is not None and asked not in found:
        ledger.wrong.append(f"image {asked} (picture {before[asked].seed}) was not found")


# --- disturbances ---------------------------------------------------------------------------------


def replicas_of(service: Service, name: str) -> list[Any]:
    title = f"ServeReplica:{name}:"
    return [p for p in service_processes(service.data) if title in " ".join(p.cmdline())]


def kill_replica(service: Service, name: str) -> None:
    """SIGKILL one replica of an application."""
    for process in replicas_of(service, name)[:1]:
        process.kill()


def redeploy(service: Service, folder: Path, turn: int) -> None:
    """Deploy with another argument, so that the application restarts."""
    config = yaml.safe_load(light_config().read_text())
    names = [one["name"] for one in config["applications"]]
    chosen = config["applications"][turn % len(names)]
    key = "max_requests" if chosen["name"] == "ambience" else "completion_interval"
    chosen.setdefault("args", {})[key] = 60 + turn if key == "max_requests" else 1.0 + turn / 100
    edited = folder / "edited.yaml"
    edited.write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [str(AMBIENCE), "deploy", "--config", str(edited)],
        env=service.environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def disturbances(
    service: Service, folder: Path, restart_store: Callable[[], None] | None
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield disturbances in turn, for ever, each with its description."""
    turn = 0
    while True:
        for name in ("phash", "color", "local", "ambience"):
            yield f"killed a replica of {name}", lambda name=name: kill_replica(service, name)
            if restart_store is not None:
                yield "killed the store's server", restart_store
            turn += 1
            yield "redeployed", lambda turn=turn: redeploy(service, folder, turn)


# --- final check ----------------------------------------------------------------------------------


def check(service: Service, ledger: Ledger) -> None:
    """Compare the list of images and a sample of answers with a recomputation."""
    held = {at: one.seed for at, one in ledger.settled().items() if one.seed is not None}
    with service.client() as client:
        _wait_until_settled(client, len(held))
        listed = set(_listed(client))
        if listed != held.keys():
            ledger.wrong.append(f"listed and acknowledged differ: {sorted(listed ^ held.keys())}")
        for name in RETRIEVERS:
            _compare(client, name, held, ledger)


def _wait_until_settled(client: httpx.Client, count: int) -> None:
    """Wait until every retriever is ready and holds every image."""
    until = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < until:
        with contextlib.suppress(httpx.HTTPError, KeyError):
            rows = client.get("/v1/retrievers").json()["retrievers"]
            mine = [row for row in rows if row["name"] in RETRIEVERS]
            if len(mine) == len(RETRIEVERS) and all(
                row["state"] == "ready" and row["count"] == count for row in mine
            ):
                return
        time.sleep(0.5)
    raise AssertionError(f"not all retrievers hold {count} pictures after {SETTLE_SECONDS:g} s")


def _listed(client: httpx.Client) -> Iterator[int]:
    cursor: str | None = None
    while True:
        params = {"limit": "500"} | ({"cursor": cursor} if cursor else {})
        page = client.get("/v1/images", params=params).raise_for_status().json()
        yield from (image["image_id"] for image in page["images"])
        cursor = page.get("next_cursor")
        if not cursor:
            return


def _compare(client: httpx.Client, name: str, held: dict[int, int], ledger: Ledger) -> None:
    extractor = make_extractor(name)
    extractor.load()
    made = {seed: extractor.extract(_view(extractor, seed)) for seed in set(held.values())}
    rows = {at: made[seed] for at, seed in held.items()}
    index: Index = make_index(extractor.index, {}, lambda ids: {at: rows[at] for at in ids})
    index.apply(rows)
    dice = random.Random(1)
    for image_id in dice.sample(sorted(held), min(COMPARED, len(held))):
        query = Query([rows[image_id]])
        expected = index.search(query, index.Params.parse({"k": 10}))
        data = {"k": "10", "image_id": str(image_id)}
        answer = client.post(f"/v1/retrievers/{name}/search", json=data).raise_for_status()
        if not _same(expected, answer.json()["hits"]):
            ledger.wrong.append(f"{name} answers for image {image_id} otherwise than recomputed")
        ledger.count(f"answers of {name} recomputed")


def _view(extractor: Any, seed: int) -> Any:
    return decode(body(seed)).view(extractor.view)


def _same(expected: Sequence[Hit], hits: Sequence[dict[str, Any]]) -> bool:
    ours = [(hit.image_id, hit.inliers) for hit in expected]
    if any(inliers is not None for _, inliers in ours):
        return ours[:1] == [(hit["image_id"], hit["inliers"]) for hit in hits][:1]
    gaps = [hit.distance for hit in expected], [hit["distance"] for hit in hits]
    return len(gaps[0]) == len(gaps[1]) and bool(np.allclose(*gaps, rtol=1e-6))


def soak(
    service: Service, minutes: float, folder: Path, restart_store: Callable[[], None] | None
) -> Ledger:
    """Run the whole soak test; return the ledger, which lists what went wrong."""
    ledger, stop = Ledger(), threading.Event()
    end = time.monotonic() + 60 * minutes
    with ThreadPoolExecutor(WRITERS + SEARCHERS) as pool:
        work = [
            *(pool.submit(write, ledger, service.url, 1000 * n, n, stop) for n in range(WRITERS)),
            *(pool.submit(search, ledger, service.url, n, stop) for n in range(SEARCHERS)),
        ]
        try:
            for what, disturb in disturbances(service, folder, restart_store):
                pause = min(DISTURBANCE_SECONDS, max(0, end - time.monotonic()))
                if wait(work, pause, FIRST_EXCEPTION).done or time.monotonic() >= end:
                    break
                disturb()
                ledger.count(what)
                print(f"{what}; {dict(ledger.counts)}", flush=True)
        finally:
            stop.set()
    for one in work:
        one.result()
    check(service, ledger)
    return ledger


@contextlib.contextmanager
def store_of(kind: str) -> Iterator[Callable[[], None] | None]:
    """Set the store of the services started within; yield a function that restarts its server."""
    if kind == "lmdb":
        yield None
        return
    server = PostgresServer()
    os.environ["AMBIENCE_STORE"] = server.new_database()

    def kill() -> None:
        server.stop(signal.SIGQUIT)
        time.sleep(AWAY_SECONDS)
        server.start()

    try:
        yield kill
    finally:
        del os.environ["AMBIENCE_STORE"]
        server.remove()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--store", choices=["postgresql", "lmdb"], default="postgresql")
    args = parser.parse_args()
    with store_of(args.store) as kill, tempfile.TemporaryDirectory(prefix="soak-") as folder:
        service = start_service(Path(folder) / "data")
        try:
            ledger = soak(service, args.minutes, Path(folder), kill)
        finally:
            stop_service(service)
    for what, count in sorted(ledger.counts.items()):
        print(f"{count:8} {what}")
    for line in ledger.wrong:
        print(f"WRONG: {line}")
    print(f"{len(ledger.wrong)} wrong")
    return bool(ledger.wrong)


if __name__ == "__main__":
    sys.exit(main())
