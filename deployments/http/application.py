"""The FastAPI application over the gateway, and its Serve deployment with a socket of its own or
behind Serve's proxy."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import AsyncIterator

import uvicorn
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline
from ray import serve

from deployments.http import bulk, editing, health, metrics, openapi, problems, v1
from deployments.http.access_log import AccessLog
from deployments.http.admission.connections import BoundedConnection
from deployments.http.admission.headers import DOCUMENT_FILES, SecurityHeaders
from deployments.http.admission.keys import ApiKeys, document_keys
from deployments.http.admission.middleware import Admission
from deployments.http.admission.origins import WILDCARD
from deployments.http.conditional import HeadRequests
from deployments.http.copies import checking, comparing, tombstones
from deployments.http.duplicates import routes as duplicates
from deployments.http.examples import document_examples
from deployments.http.gallery import routes as gallery
from deployments.http.gallery import services
from deployments.http.jobs import routes as jobs
from deployments.http.listing import routes as listing
from deployments.http.showing import thumbnails, usage
from deployments.ingress.gateway import Gateway
from deployments.loopback import keep_sockets_on_loopback
from deployments.page import routes as page
from deployments.settings import IngressArgs, address, data_folder

logger = logging.getLogger(__name__)
ROUTES = (
    *(v1, listing, bulk, editing, checking, comparing, tombstones, duplicates, jobs),
    *(thumbnails, usage),
    *(gallery, services, health, metrics, problems, page),
)
DRAIN_SECONDS = 1.0
STOP_SECONDS = 5
EXPOSED = [
    *("Allow", "Retry-After", "WWW-Authenticate"),
    *(*openapi.TAGGED, *openapi.REPORT, *thumbnails.SIZE),
]
"""Headers of answers that pages of other origins may read."""
ABOUT = """Finds pictures by picture, by colour and by detail.

Errors are `application/problem+json`. Every answer says in `Server-Timing` how long each retriever
took, in `X-Ambience-Answered` who answered, and in `X-Ambience-Missing` who did not, and why."""


class Ingress:
    """Serve deployment that answers HTTP."""

    def __init__(self, args: IngressArgs) -> None:
        keep_sockets_on_loopback()
        self.args = args
        self.gateway = Gateway(args, serve.get_replica_context().app_name)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return make_app(self.gateway)

    def check_health(self) -> None:
        """Healthy while the event loop runs."""


def make_app(gateway: Gateway) -> FastAPI:
    """The FastAPI application with all routes over this gateway."""
    draining = threading.Event()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        following = asyncio.create_task(gateway.directory.follow())
        warming = asyncio.create_task(gateway.warm_up())
        listener = Listener(app) if gateway.args.listen else None
        try:
            yield
        finally:
            if listener is not None:
                draining.set()
                await listener.drain()
            following.cancel()
            warming.cancel()
            gateway.close()

    # It serves the scripts of `/docs` itself.
    app = FastAPIOffline(
        redoc_url=None,
        static_url=DOCUMENT_FILES,
        title="ambience",
        description=ABOUT,
        version="1",
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.unlimited_gateway = gateway
    problems.install(app)
    for routes in ROUTES:
        app.include_router(routes.router)
    document_keys(app, ApiKeys(gateway.args))
    document_examples(app)
    if gateway.args.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(gateway.args.cors_origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=EXPOSED,
        )
    # Behind Serve's proxies it is not known here under which names they are reached.
    bound = address()[0] if gateway.args.listen else WILDCARD
    app.add_middleware(Admission, args=gateway.args, draining=draining, bound=bound)
    app.add_middleware(metrics.RequestCounter)
    app.add_middleware(HeadRequests)
    app.add_middleware(
        AccessLog,
        style=gateway.args.access_log,
        path=data_folder() / "access.log",
        max_bytes=gateway.args.access_log_bytes,
    )
    # The framework answers an unforeseen error outside of all added middleware.
    build = app.build_middleware_stack
    setattr(app, "build_middleware_stack", lambda: SecurityHeaders(build()))  # noqa: B010
    return app


class Listener:
    """An HTTP server on AMBIENCE_HOST:AMBIENCE_PORT inside the replica.

    The port is shared (SO_REUSEPORT), so a replacement replica listens before this one stops, and
    several replicas may share the load of one host. It answers 3 times as many requests a second as
    Serve's own proxy (benchmarks/serving_modes.py).
    """

    def __init__(self, app: FastAPI) -> None:
        host, port = address()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind((host, port))
        config = uvicorn.Config(
            app,
            http=BoundedConnection,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        self._server = uvicorn.Server(config)
        # Signals of this process belong to Ray.
        setattr(self._server, "capture_signals", contextlib.nullcontext)  # noqa: B010

        self._serving = asyncio.create_task(self._server.serve([self._socket]))

    async def drain(self) -> None:
        """Close idle connections, stop accepting new ones, and let requests in flight end."""
        await asyncio.sleep(DRAIN_SECONDS)
        self._server.should_exit = True
        await asyncio.wait({self._serving}, timeout=STOP_SECONDS)
