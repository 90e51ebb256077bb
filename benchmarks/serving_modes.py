"""Requests per second of a five-way fan-out under each of Ray Serve's serving modes.

Each mode runs in a Ray cluster of its own, started with that mode's environment variables
(Serve reads them at import). Five deployments answer a tiny payload; an ingress asks all
five and answers. The baseline is Ray's defaults in the same run.

    python benchmarks/serving_modes.py [--seconds 8] [--modes default,throughput]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time

MODES: dict[str, dict[str, str]] = {
    "default": {},
    "throughput": {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",
    },
    "throughput+direct": {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"},
    "throughput+haproxy": {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    },
}
FAN_OUT = 5


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve_fan_out(port: int) -> str:
    """Start Ray, six applications; return the address to ask."""
    import ray
    from fastapi import FastAPI
    from ray import serve

    ray.init(
        num_cpus=4,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
        configure_logging=False,
    )
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})

    @serve.deployment(ray_actor_options={"num_cpus": 0.1})
    class Leaf:
        async def search(self, bits: bytes) -> list[int]:
            return [len(bits)]

    app = FastAPI()

    @serve.deployment(ray_actor_options={"num_cpus": 0.1}, max_ongoing_requests=100)
    @serve.ingress(app)
    class Gateway:
        def __init__(self) -> None:
            self.handles = [serve.get_app_handle(f"leaf{number}") for number in range(FAN_OUT)]

        @app.get("/")
        async def ask(self) -> list[list[int]]:
            return await asyncio.gather(
                *(handle.search.remote(b"x" * 72) for handle in self.handles)
            )

    for number in range(FAN_OUT):
        serve.run(Leaf.bind(), name=f"leaf{number}", route_prefix=None)
    serve.run(Gateway.bind(), name="gateway", route_prefix="/")
    direct = os.environ.get("RAY_SERVE_THROUGHPUT_OPTIMIZED") == "1" and (
        os.environ.get("RAY_SERVE_ENABLE_DIRECT_INGRESS", "1") == "1"
        and "RAY_SERVE_ENABLE_HA_PROXY" not in os.environ
    )
    shown = os.environ["RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"] if direct else port
    return f"http://127.0.0.1:{shown}/"


async def load(address: str, connections: int, seconds: float) -> tuple[float, float]:
    """Requests per second and median milliseconds at this many connections."""
    import aiohttp

    times: list[float] = []
    stop = time.perf_counter() + seconds

    async def worker(session: aiohttp.ClientSession) -> None:
        while time.perf_counter() < stop:
            began = time.perf_counter()
            async with session.get(address) as answer:
                body = await answer.json()
                assert len(body) == FAN_OUT, body
            times.append(time.perf_counter() - began)

    async with aiohttp.ClientSession() as session:
        for _ in range(30):
            async with session.get(address) as answer:
                await answer.read()
        began = time.perf_counter()
        stop = began + seconds
        await asyncio.gather(*(worker(session) for _ in range(connections)))
        elapsed = time.perf_counter() - began
    return len(times) / elapsed, statistics.median(times) * 1000


def measure(port: int, seconds: float) -> None:
    import ray

    address = serve_fan_out(port)
    result = {}
    for connections in (1, 8):
        rate, p50 = asyncio.run(load(address, connections, seconds))
        result[connections] = {"per_second": round(rate, 1), "p50_ms": round(p50, 1)}
    sys.stderr.write("RESULT " + json.dumps(result) + "\n")
    from ray import serve

    serve.shutdown()
    ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.seconds)
        return
    results = {}
    for mode in options.modes.split(","):
        with tempfile.TemporaryDirectory(prefix="am", dir="/tmp") as folder:
            environment = os.environ | MODES[mode] | {"RAY_TMPDIR": folder}
            environment["RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"] = str(free_port())
            log = open(f"{folder}/log", "w")
            done = subprocess.run(
                [
                    sys.executable,
                    __file__,
                    "--measure",
                    str(free_port()),
                    "--seconds",
                    str(options.seconds),
                ],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                timeout=300,
            )
            if done.returncode:
                print(open(f"{folder}/log").read()[-3000:])
                raise SystemExit(f"{mode} failed")
            text = open(f"{folder}/log").read()
            results[mode] = json.loads(text.split("RESULT ")[1].splitlines()[0])
        print(mode, results[mode], flush=True)


if __name__ == "__main__":
    main()
