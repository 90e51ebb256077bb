"""What the service's benchmarks share: pictures to send, load over HTTP, processes that end."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import httpx
import numpy as np
import yaml
from PIL import Image, ImageOps, UnidentifiedImageError

from cluster.service.data_folder import end_leftovers

ROOT = Path(__file__).parent.parent
AMBIENCE = Path(sys.executable).with_name("ambience")
BYTES_PER_PIXEL = 0.25
"""Of a camera's JPEG: 3 MB at 12 MP."""
TILE = 500
WARM_UP = 5
START_SECONDS = 300.0
STOP_SECONDS = 60.0
BOUNDARY = "ambience-benchmark-boundary"

Step = Callable[[aiohttp.ClientSession], Awaitable[None]]
"""One request, or several that belong together; raises if an answer is not what it should be."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast steps were answered."""

    p50_ms: float
    per_second: float


def measure(step: Step, connections: int, seconds: float) -> Speed:
    """Repeat a step on so many connections at once for about so many seconds, after a warm-up."""
    return asyncio.run(_measure(step, connections, seconds))


async def _measure(step: Step, connections: int, seconds: float) -> Speed:
    took: list[float] = []
    until = 0.0

    async def connection() -> None:
        while (began := time.perf_counter()) < until:
            await step(session)
            took.append(time.perf_counter() - began)

    limits = aiohttp.ClientTimeout(total=60)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=limits, connector=connector) as session:
        for _ in range(WARM_UP):
            await step(session)
        began = time.perf_counter()
        until = began + seconds
        await asyncio.gather(*(connection() for _ in range(connections)))
        elapsed = time.perf_counter() - began
    return Speed(statistics.median(took) * 1000, len(took) / elapsed)


def median(speeds: Sequence[Speed]) -> Speed:
    """Of several rounds."""
    return Speed(
        statistics.median(speed.p50_ms for speed in speeds),
        statistics.median(speed.per_second for speed in speeds),
    )


def posting(
    url: str,
    bodies: Sequence[bytes],
    check: Callable[[aiohttp.ClientResponse, bytes], None],
    status: int = 200,
) -> Step:
    """POST the multipart bodies in turn."""
    turns = itertools.cycle(bodies)
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}

    async def step(session: aiohttp.ClientSession) -> None:
        async with session.post(url, data=io.BytesIO(next(turns)), headers=headers) as answer:
            body = await answer.read()
            if answer.status != status:
                raise SystemExit(f"{url}: {answer.status} {body[:300]!r}")
            check(answer, body)

    return step


def together(*steps: Step) -> Step:
    """All of them at once; done when the last one is."""

    async def step(session: aiohttp.ClientSession) -> None:
        await asyncio.gather(*(one(session) for one in steps))

    return step


def multipart(image: bytes, **fields: str) -> bytes:
    """The body of a form, encoded once so that the client's share of the cores stays small."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{{}}"'
    parts = [f"{head.format(name)}\r\n\r\n{value}\r\n".encode() for name, value in fields.items()]
    file = f'{head.format("image")}; filename="document"\r\n'
    parts += [f"{file}Content-Type: application/octet-stream\r\n\r\n".encode(), image]
    return b"".join([*parts, f"\r\n--{BOUNDARY}--\r\n".encode()])


def read_photographs(folder: Path) -> list[Image.Image]:
    """All pictures of a folder, RGB; other files are passed over."""
    found = []
    for path in sorted(folder.iterdir()):
        with contextlib.suppress(UnidentifiedImageError, IsADirectoryError):
            found.append(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    if not found:
        raise SystemExit(f"no pictures in {folder}")
    return found


def mosaic(
    photographs: Sequence[Image.Image], width: int, height: int, rng: np.random.Generator
) -> Image.Image:
    """A picture of this size, of photographs at 500 px: about as much detail as a camera's."""
    canvas = Image.new("RGB", (width, height))
    for x in range(0, width, TILE):
        for y in range(0, height, TILE):
            photograph = photographs[int(rng.integers(len(photographs)))]
            canvas.paste(ImageOps.fit(photograph, (TILE, TILE)), (x, y))
    return canvas


def as_jpeg(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def camera_quality(image: Image.Image) -> int:
    """The JPEG quality at which this picture has about as many bytes as a camera's would."""
    wanted = image.width * image.height * BYTES_PER_PIXEL
    low, high = 40, 97
    while low < high:
        middle = (low + high + 1) // 2
        if len(as_jpeg(image, middle)) <= wanted:
            low = middle
        else:
            high = middle - 1
    return low


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end_on_sigterm() -> None:
    """Let SIGTERM unwind this program, so that it ends what it started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


@contextlib.contextmanager
def process(
    command: Sequence[str],
    log: Path,
    environment: dict[str, str] | None = None,
    stderr: int | None = subprocess.STDOUT,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process of its own group, in the repository's root; ended by Ctrl-C at the latest here.

    With `stderr` None its errors are shown, and the log holds its output alone.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        yield child
    finally:
        stop(child)


def stop(child: subprocess.Popen[bytes]) -> float:
    """End a process as Ctrl-C does, and its group if that does not; the seconds it took."""
    began = time.perf_counter()
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGINT)
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    return time.perf_counter() - began


@contextlib.contextmanager
def ambience(data: Path, config: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A starting `ambience serve`, of which nothing is left afterwards."""
    environment = {"AMBIENCE_DATA": str(data), "AMBIENCE_PORT": str(port)}
    command = [str(AMBIENCE), "serve", "--config", str(config)]
    try:
        with process(command, data.with_suffix(".log"), environment) as child:
            yield child
    finally:
        if killed := end_leftovers(data):
            print(f"{killed} processes of the service were left over and killed", file=sys.stderr)


def wait_for(
    url: str,
    enough: Callable[[httpx.Response], bool],
    child: subprocess.Popen[bytes],
    log: Path,
) -> None:
    """Until this address answers as wanted; ends the program with the log if it never does."""
    until = time.monotonic() + START_SECONDS
    with httpx.Client(timeout=10) as client:
        while time.monotonic() < until and child.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if enough(client.get(url)):
                    return
            time.sleep(0.1)
    raise SystemExit(f"{url} did not answer as it should:\n{log.read_text()[-3000:]}")


def wait_until_filled(
    url: str, kinds: Sequence[str], count: int, child: subprocess.Popen[bytes], log: Path
) -> None:
    """Until each of these retrievers is ready and has so many pictures."""

    def filled(answer: httpx.Response) -> bool:
        rows = answer.json()["retrievers"] if answer.status_code == 200 else []
        return [row["count"] for row in rows if row["state"] == "ready"] == [count] * len(kinds)

    wait_for(f"{url}/v1/retrievers", filled, child, log)


def write_config(path: Path, retrievers: Sequence[str]) -> Path:
    """The shipped `serve_config.yaml` with no retrievers but these."""
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    config["applications"] = [
        application
        for application in config["applications"]
        if application["name"] in ("ambience", *retrievers)
    ]
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """As Markdown."""
    for cells in (header, ["---"] * len(header), *rows):
        print(f"| {' | '.join(cells)} |")
