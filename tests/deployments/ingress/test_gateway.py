"""How fresh an answer must be: the log head is read once for all retrievers of a search."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest
from fastapi.testclient import TestClient

from deployments.http.application import make_app
from deployments.ingress.gateway import Gateway
from deployments.settings import IngressArgs
from tests.deployments import served
from tests.deployments.pictures import image_part, post_form, put
from tests.drawing import jpeg
from tests.indexes.pictures import picture
from tests.indexes.store.faults import FailingStore
from tests.indexes.store.forks import wait_for
from tests.postgres_server import PostgresServer


@pytest.mark.anyio
async def test_a_search_asks_for_all_that_the_log_holds(gateway: Gateway) -> None:
    gateway.store.put_many([picture(1, "a"), picture(2, "b")])
    assert (await gateway.search_scope()).min_seq == 2
    assert (await gateway.search_scope(min_seq=1)).min_seq == 2
    assert (await gateway.search_scope(min_seq=9)).min_seq == 9


@pytest.mark.anyio
async def test_a_search_with_stale_ok_does_not_wait_for_the_store(
    gateway: Gateway,
) -> None:
    gateway.store = FailingStore(gateway.store)
    scope = await gateway.search_scope(stale_ok=True)
    assert (scope.stale_ok, scope.stale) == (True, False)


def test_without_the_database_answers_come_from_memory_and_say_so(
    postgres: PostgresServer, new_database: Callable[[], str]
) -> None:
    url = new_database()
    made = Gateway(IngressArgs(store=url, listen=False), "ambience")
    made.directory.complete = True
    handle = served.serve_here("phash", {"extractor": "phash", "store": url})

    async def meet() -> None:
        await served.until(handle, "ready")
        await served.join(made, "phash", handle)

    asyncio.run(meet())
    client = TestClient(make_app(made), "http://localhost", raise_server_exceptions=False)
    put(client, 7, jpeg(7))
    asked = post_form(client, "/v1/search", image_part(jpeg(7)))
    assert [hit["image_id"] for hit in asked.json()["hits"]] == [7]
    assert "X-Ambience-Stale" not in asked.headers
    postgres.stop()
    try:
        asked = post_form(client, "/v1/search", image_part(jpeg(7)))
        assert [hit["image_id"] for hit in asked.json()["hits"]] == [7]
        assert asked.headers["X-Ambience-Stale"] == "true"
        refused = client.put("/v1/images/8", files={"image": jpeg(8)})
        assert refused.status_code == 503
        assert "it can't be reached" in refused.json()["detail"]
    finally:
        postgres.start()
    wait_for(lambda: client.put("/v1/images/8", files={"image": jpeg(8)}).status_code == 201, 60)

    def search() -> httpx.Response:
        return post_form(client, "/v1/search", image_part(jpeg(8)))

    # The retriever reconnects on its own.
    wait_for(lambda: "X-Ambience-Stale" not in search().headers, 60)
    assert search().json()["hits"][0]["image_id"] == 8
    made.close()
