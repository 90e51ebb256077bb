"""The queue model of the capacity benchmark, in cases with a known exact result."""

from __future__ import annotations

import pytest

from benchmarks.queue_model import Costs, Layout, most_per_second, simulate

SEARCH = Costs(0.001, 0.002, 0.0005, 0.004, {"phash": 0.010, "color": 0.006}, wait=0.003)


def test_alone_a_request_takes_the_sum_of_its_longest_path() -> None:
    alone = simulate(SEARCH, Layout(), 1)
    assert alone.p50 == pytest.approx(0.001 + 0.002 + 2 * 0.0005 + 0.004 + 0.010 + 0.003)
    assert alone.per_second == pytest.approx(1 / alone.p50)


def test_the_cores_bound_the_rate_whatever_the_replicas() -> None:
    for replicas in (1, 2):
        layout = Layout(replicas=replicas, cores=2)
        busy = simulate(SEARCH, layout, 16)
        # Only the cores are saturated: two of them for 24 ms of work per request.
        assert busy.per_second == pytest.approx(2 / 0.024, rel=0.2)
        assert busy.p50 * busy.per_second == pytest.approx(16, rel=0.1)
    assert most_per_second(SEARCH, Layout(replicas=2, cores=2)) == (
        pytest.approx(2 / 0.024),
        "the cores",
    )


def test_without_a_bound_on_cores_replicas_of_the_slowest_retriever_raise_the_rate() -> None:
    one, two = (simulate(SEARCH, Layout(replicas=replicas), 16) for replicas in (1, 2))
    assert one.per_second == pytest.approx(100, rel=0.05)
    assert two.per_second == pytest.approx(200, rel=0.05)
    assert most_per_second(SEARCH, Layout()) == (pytest.approx(100), "phash")


def test_every_shard_asked_takes_its_share_of_the_ingress() -> None:
    fast = Costs(0, 0.002, 0.001, 0, {"phash": 0.001})
    most, what = most_per_second(fast, Layout(shards=98))
    assert (most, what) == (pytest.approx(10), "the ingress's loop")
    assert simulate(fast, Layout(shards=98), 8).per_second == pytest.approx(10, rel=0.05)
    doubled = simulate(fast, Layout(shards=98, ingresses=2), 8)
    assert doubled.per_second == pytest.approx(20, rel=0.1)


def test_what_always_runs_takes_its_share_of_the_cores() -> None:
    half = Costs(0, 0, 0, 0.004, {}, background=1.0)
    assert simulate(half, Layout(cores=2), 8).per_second == pytest.approx(250, rel=0.02)
