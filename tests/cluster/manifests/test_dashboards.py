"""The dashboard and the scrape configuration, compared with what /metrics really serves."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml
from ray.util.metrics import Histogram, Metric

from deployments.http.metrics import RequestMetrics
from deployments.replicas.metrics import RetrieverMetrics
from tests.conftest import ROOT, Service
from tests.deployments.http.test_metrics import PATIENCE_SECONDS, scraped
from tests.drawing import jpeg

RATE = "$__rate_interval"
"""Grafana variable that Grafana replaces by a duration."""


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(
        (ROOT / "cluster" / "manifests" / "grafana.json").read_text()
    )
    return loaded


def parsed(target: dict[str, Any]) -> Any:
    return promql_parser.parse(target["expr"].replace(RATE, "1m"))


def expressions(dashboard: dict[str, Any]) -> Iterator[Any]:
    for panel in dashboard["panels"]:
        yield from map(parsed, panel["targets"])


def selectors(expression: Any) -> list[Any]:
    found: list[Any] = []

    def visit(one: Any) -> bool:
        if isinstance(one, promql_parser.VectorSelector):
            found.append(one)
        return True

    promql_parser.walk(expression, visit)
    return found


def exported() -> dict[str, set[str]]:
    """Return the labels of the exporter's series by the names of the series."""
    names: dict[str, set[str]] = {}
    for group in (RequestMetrics(), RetrieverMetrics("phash")):
        for made in vars(group).values():
            if not isinstance(made, Metric):
                continue
            labels, name = set(made.info["tag_keys"]), str(made.info["name"])
            if isinstance(made, Histogram):
                for end in ("_bucket", "_sum", "_count"):
                    names[name + end] = labels | {"le"}
            else:
                names[name] = labels
    return names


def test_every_series_and_label_of_the_dashboard_is_exported(dashboard: dict[str, Any]) -> None:
    known = exported()
    used: set[str] = set()
    for expression in expressions(dashboard):
        for selector in selectors(expression):
            used.add(selector.name)
            assert selector.name in known
            assert {one.name for one in selector.matchers.matchers} <= known[selector.name]
    assert used >= {name for name in known if not name.endswith(("_sum", "_count", "_seq"))}


def test_every_legend_names_a_label_that_its_series_keeps(dashboard: dict[str, Any]) -> None:
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            kept = re.search(r"sum by \(([^)]*)\)", target["expr"])
            known = exported()[
                selectors(promql_parser.parse(target["expr"].replace(RATE, "1m")))[0].name
            ]
            assert shown <= (set(kept[1].split(", ")) if kept else known)


def test_panels_lie_beside_each_other_and_take_their_source_from_the_dashboard(
    dashboard: dict[str, Any],
) -> None:
    (source,) = dashboard["templating"]["list"]
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        assert panel["datasource"]["uid"] == f"${{{source['name']}}}"
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_what_a_running_service_serves_is_on_the_dashboard_and_scraped_once(
    dashboard: dict[str, Any], shared_service: Service
) -> None:
    config = yaml.safe_load((ROOT / "cluster" / "manifests" / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    (static,) = job["static_configs"]
    assert len(static["targets"]) == 1
    wanted = {selector.name for one in expressions(dashboard) for selector in selectors(one)}
    wanted.remove("ambience_missing_total")  # Exported only after a retriever was missing.
    until = time.monotonic() + PATIENCE_SECONDS
    with shared_service.client() as client:
        assert client.get(job["metrics_path"]).status_code == 200
        client.post("/v1/search", files={"image": jpeg(1)}).raise_for_status()
        while missing := wanted - {name for name, *_ in scraped(client)}:
            assert time.monotonic() < until, missing
            time.sleep(0.5)
