"""Requests a second of a five-way fan-out under each of Ray Serve's serving modes.

    python -m benchmarks.serving_modes [--seconds 8] [--modes default,throughput,own-socket,haproxy]

An ingress asks five deployments for a tiny answer, as the service asks its retrievers. Each mode
runs in a Ray of its own, started with that mode's environment: Serve reads it at import. The
baseline is `default`, Ray as it comes, in the same run. `own-socket` is what ships: the service's
own environment and its listener inside the ingress replica. `throughput` and `haproxy` answer
through Serve's proxy and through HAProxy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from fastapi import FastAPI

from benchmarks import loading
from benchmarks.loading import Speed, Step
from cluster.service.data_folder import end_leftovers
from cluster.service.environment import MARK, RAY_ENVIRONMENT

FAN_OUT = 5
CONNECTIONS = (1, 8)
RESERVED_CPUS = 0.1
LIMIT_SECONDS = 300.0
PATIENCE_SECONDS = 5.0
QUIET = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


class Mode(NamedTuple):
    """A way to serve."""

    environment: Mapping[str, str]
    listens: bool = False
    """Whether the ingress replica binds the port itself."""


MODES = {
    "default": Mode(QUIET),
    "throughput": Mode(
        QUIET | {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0"}
    ),
    "own-socket": Mode(RAY_ENVIRONMENT, listens=True),
    "haproxy": Mode(
        QUIET
        | {
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        }
    ),
}
SHIPPED = "own-socket"


class Leaf:
    """A retriever that does nothing."""

    async def search(self, bits: bytes) -> list[int]:
        return [len(bits)]


class Gateway:
    """The ingress: asks all leaves."""

    def __init__(self, listens: bool) -> None:
        from ray import serve

        self.listens = listens
        self.leaves: list[Any] = [serve.get_app_handle(f"leaf{at}") for at in range(FAN_OUT)]

    def __serve_build_asgi_app__(self) -> FastAPI:
        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            if not self.listens:
                yield
                return
            from deployments.http.application import Listener

            listener = Listener(app)
            yield
            await listener.drain()

        app = FastAPI(lifespan=lifespan)

        @app.get("/")
        async def ask() -> list[list[int]]:
            bits = b"x" * 72
            return list(await asyncio.gather(*(leaf.search.remote(bits) for leaf in self.leaves)))

        return app


def serve_fan_out(listens: bool, port: int) -> None:
    """Start Ray and six applications, in this process's environment."""
    import ray
    from ray import serve

    ray.init(
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _node_ip_address="127.0.0.1",
    )
    serve.start(
        proxy_location="Disabled" if listens else "HeadOnly",
        http_options={"host": "127.0.0.1", "port": port},
    )
    actor = {"num_cpus": RESERVED_CPUS}
    leaf: Any = serve.deployment(Leaf, max_ongoing_requests=256, ray_actor_options=actor)
    gateway: Any = serve.deployment(
        serve.ingress()(Gateway), max_ongoing_requests=1000, ray_actor_options=actor
    )
    # The ingress is deployed last: it asks for the leaves' handles when it is made.
    serve.run_many([serve.RunTarget(leaf.bind(), f"leaf{at}", None) for at in range(FAN_OUT)])
    serve.run_many([serve.RunTarget(gateway.bind(listens), "gateway", "/")])


def asking(url: str) -> Step:
    async def step(session: aiohttp.ClientSession) -> None:
        async with session.get(url) as answer:
            found = await answer.json()
            if found != [[72]] * FAN_OUT:
                raise SystemExit(f"{url}: {answer.status} {found}")

    return step


def measure_here(listens: bool, port: int, seconds: float) -> dict[int, Speed]:
    """By connections, of the mode whose environment this process has."""
    import ray
    from ray import serve

    serve_fan_out(listens, port)
    try:
        step = asking(f"http://127.0.0.1:{port}/")
        return {number: loading.measure(step, number, seconds) for number in CONNECTIONS}
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()


def measure_mode(name: str, seconds: float) -> dict[int, Speed]:
    """In a process of its own, of which nothing is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="am", dir="/tmp") as name_of_folder:
        folder, port = Path(name_of_folder), loading.free_port()
        log, results = folder / "log", folder / "results"
        command = [sys.executable, "-m", "benchmarks.serving_modes", "--seconds", str(seconds)]
        command += ["--modes", name, "--port", str(port), "--results", str(results)]
        try:
            with loading.process(command, log, environment_of(name, folder, port)) as child:
                child.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired as exc:
            raise SystemExit(f"{name} took too long:\n{log.read_text()[-3000:]}") from exc
        finally:
            end_leftovers(folder, PATIENCE_SECONDS)
        if child.returncode:
            raise SystemExit(f"{name} failed:\n{log.read_text()[-3000:]}")
        return {int(key): Speed(*value) for key, value in json.loads(results.read_text()).items()}


def environment_of(name: str, folder: Path, port: int) -> dict[str, str]:
    """Of a mode's process. HAProxy's files and ports are its own, so that runs don't meet."""
    own = {
        "RAY_TMPDIR": str(folder),
        "AMBIENCE_HOST": "127.0.0.1",
        "AMBIENCE_PORT": str(port),
        MARK: str(folder),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy" / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "haproxy" / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder / "haproxy"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "haproxy" / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(loading.free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(loading.free_port()),
    }
    return own | dict(MODES[name].environment)


def report(results: Mapping[str, Mapping[int, Speed]]) -> None:
    rows = []
    base = results["default"]
    for name, speeds in results.items():
        row = [f"{name} (ships)" if name == SHIPPED else name]
        for number in CONNECTIONS:
            speed = speeds[number]
            ratio = speed.per_second / base[number].per_second
            row += [f"{speed.per_second:.0f}", f"{ratio:.1f}×", f"{speed.p50_ms:.1f}"]
        rows.append(row)
    columns = [
        f"{what}, {number} connections" if number > 1 else f"{what}, 1 connection"
        for number in CONNECTIONS
        for what in ("requests/s", "against default", "p50 ms")
    ]
    loading.print_table(["mode", *columns], rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    loading.end_on_sigterm()
    names = given.modes.split(",")
    if unknown := set(names) - set(MODES):
        parser.error(f"no mode {', '.join(unknown)}; there are {', '.join(MODES)}")
    if given.results:
        speeds = measure_here(MODES[names[0]].listens, given.port, given.seconds)
        rows = {number: [speed.p50_ms, speed.per_second] for number, speed in speeds.items()}
        given.results.write_text(json.dumps(rows))
        return
    # Without the baseline in the same run a ratio would mean nothing.
    report({name: measure_mode(name, given.seconds) for name in dict.fromkeys(["default", *names])})


if __name__ == "__main__":
    main()
