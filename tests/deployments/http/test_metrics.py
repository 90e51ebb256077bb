"""/metrics: only the metrics of ambience, summed over the replicas that count them."""

from __future__ import annotations

import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from deployments.http.metrics import summed
from tests.deployments.pictures import image_part, picture, post_form

PATIENCE_SECONDS = 40


def values(text: str | bytes) -> dict[tuple[str, ...], float]:
    """Return the sample values by (name, label value, …)."""
    text = text.decode() if isinstance(text, bytes) else text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def counters(worker: str, requests: int) -> str:
    return (
        "# HELP ray_ambience_requests_total HTTP requests.\n"
        "# TYPE ray_ambience_requests_total counter\n"
        f'ray_ambience_requests_total{{route="/a",WorkerId="{worker}",Version="2"}} {requests}\n'
        f'ray_ambience_requests_total{{route="/b",WorkerId="{worker}",Version="2"}} 1.0\n'
        "# HELP ray_other_total Not ours.\n"
        "# TYPE ray_other_total counter\n"
        f'ray_other_total{{WorkerId="{worker}"}} 5\n'
    )


def gauges(worker: str, pictures: int) -> str:
    return (
        "# HELP ray_ambience_pictures Pictures indexed.\n"
        "# TYPE ray_ambience_pictures gauge\n"
        f'ray_ambience_pictures{{retriever="phash",pid="{worker}"}} {pictures}\n'
    )


def lag(worker: str, changes: int) -> str:
    name = "ray_ambience_applied_lag"
    series = f'{name}{{retriever="phash",WorkerId="{worker}"}} {changes}\n'
    return f"# HELP {name} Changes.\n# TYPE {name} gauge\n{series}"


def histogram(worker: str, below: int, count: int) -> str:
    name = "ray_ambience_request_seconds"
    return (
        f"# HELP {name} Seconds.\n# TYPE {name} histogram\n"
        f'{name}_bucket{{le="0.1",WorkerId="{worker}"}} {below}\n'
        f'{name}_bucket{{le="+Inf",WorkerId="{worker}"}} {count}\n'
        f'{name}_sum{{WorkerId="{worker}"}} {count / 2}\n'
        f'{name}_count{{WorkerId="{worker}"}} {count}\n'
    )


def test_counters_of_all_replicas_are_added_up() -> None:
    found = values(summed([counters("1", 3), counters("2", 4)]))
    assert found == {
        ("ambience_requests_total", "/a"): 7,
        ("ambience_requests_total", "/b"): 2,
    }


def test_replicas_in_one_exposition_are_added_up_too() -> None:
    second = counters("2", 4).splitlines(keepends=True)[2:4]
    found = values(summed([counters("1", 3) + "".join(second)]))
    assert found["ambience_requests_total", "/a"] == 7


def test_what_every_replica_shows_alike_is_not_added_up() -> None:
    found = values(summed([gauges("1", 10), gauges("2", 12)]))
    assert found == {("ambience_pictures", "phash"): 12}


def test_the_replica_that_is_furthest_behind_shows_the_lag() -> None:
    found = values(summed([lag("1", 0), lag("2", 31)]))
    assert found == {("ambience_applied_lag", "phash"): 31}


def test_histograms_add_up_bucket_by_bucket() -> None:
    found = values(summed([histogram("1", 1, 4), histogram("2", 2, 6)]))
    assert found["ambience_request_seconds_bucket", "0.1"] == 3
    assert found["ambience_request_seconds_bucket", "+Inf"] == 10
    assert found["ambience_request_seconds_count",] == 10
    assert found["ambience_request_seconds_sum",] == pytest.approx(5)


@pytest.mark.parametrize("texts", [[], [""], ["# TYPE ray_other gauge\nray_other 1\n"]])
def test_nothing_of_ours_is_an_empty_exposition(texts: list[str]) -> None:
    assert values(summed(texts)) == {}


def test_requests_and_retrievers_of_a_running_service_are_counted(
    library: httpx.Client,
) -> None:
    before = scraped(library)
    for _ in range(3):
        post_form(library, "/v1/search", image_part(picture(1)))
    library.get("/v1/images/999999")
    library.get("/no/such/path")
    expected = {
        ("ambience_requests_total", "/v1/search", "200"): 3,
        ("ambience_requests_total", "/v1/images/{image_id}", "404"): 1,
        ("ambience_requests_total", "other", "404"): 1,
        ("ambience_request_seconds_count", "/v1/search"): 3,
        ("ambience_retriever_seconds_count", "phash"): 3,
    }
    shown = {
        ("ambience_pictures", "phash"): 10,
        ("ambience_ready", "local"): 1,
        ("ambience_applied_lag", "phash"): 0,
    }
    # Requests of earlier tests may be counted late, so these counts are lower bounds.
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        after = scraped(library)
        counted = {key: after.get(key, 0) - before.get(key, 0) for key in expected}
        enough = all(counted[key] >= least for key, least in expected.items())
        if enough and shown.items() <= after.items():
            return
        time.sleep(0.5)
    raise AssertionError(counted | {key: after.get(key) for key in shown})


def scraped(client: httpx.Client) -> dict[tuple[str, ...], float]:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return values(answer.text)
