"""What the config leaves open is filled in by the size of the machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from cluster.cli.main import default_config
from cluster.service.applications import target_of, validated
from cluster.service.sizing import (
    gpu_share,
    ingress_replicas,
    neural_applications,
    reservable,
    usual_settings,
)
from deployments.app import RESERVED_CPUS


@pytest.fixture
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(default_config().read_text())
    return loaded


def application_of(config: dict[str, Any], name: str) -> dict[str, Any]:
    found = {one["name"]: one for one in config["applications"]}
    application: dict[str, Any] = found[name]
    return application


def built(config: dict[str, Any], name: str, cpus: float, gpus: float) -> dict[str, Any]:
    """The deployments of one application, as they would be deployed."""
    usual = usual_settings(config, cpus, gpus)
    schemas = {one.name: one for one in validated(config).applications}
    target = target_of(schemas[name], {}, usual.get(name, {})).target
    first = target._bound_deployment
    others = [one._bound_deployment for one in first.init_args if hasattr(one, "_bound_deployment")]
    return {one.name: one for one in (first, *others)}


def resources_of(deployment: Any) -> Mapping[str, Any]:
    options: Mapping[str, Any] = deployment.ray_actor_options
    return {name: options[name] for name in ("num_cpus", "num_gpus") if options.get(name)}


def test_the_number_of_ingress_replicas_grows_with_the_cores(config: dict[str, Any]) -> None:
    assert [ingress_replicas(cores) for cores in (1, 2, 4, 8, 16, 64)] == [1, 1, 1, 2, 4, 4]
    assert built(config, "ambience", 16, 0)["Ingress"].num_replicas == 4


def test_what_the_config_says_stands(config: dict[str, Any]) -> None:
    application_of(config, "ambience")["deployments"][0]["num_replicas"] = 3
    options = {"ray_actor_options": {"num_gpus": 0.5}}
    application_of(config, "global")["deployments"][0].update(options)
    assert built(config, "ambience", 16, 1)["Ingress"].num_replicas == 3
    resources = resources_of(built(config, "global", 16, 1)["Retriever"])
    assert resources == {"num_cpus": RESERVED_CPUS, "num_gpus": 0.5}


def test_autoscaling_takes_the_place_of_a_number_of_replicas(config: dict[str, Any]) -> None:
    scaling = {"autoscaling_config": {"min_replicas": 2, "max_replicas": 5}}
    application_of(config, "ambience")["deployments"][0].update(scaling)
    ingress = built(config, "ambience", 16, 0)["Ingress"]
    assert ingress._deployment_config.autoscaling_config.max_replicas == 5


def test_without_a_gpu_none_is_asked_for(config: dict[str, Any]) -> None:
    assert "num_gpus" not in str(usual_settings(config, 16, 0))
    assert resources_of(built(config, "global", 16, 0)["Retriever"]) == {"num_cpus": RESERVED_CPUS}


def test_neural_applications_share_a_gpu_so_that_upgrades_and_jobs_fit_too(
    config: dict[str, Any],
) -> None:
    neural = neural_applications(config)
    assert set(neural) == {"global", "image_text", "copy", "caption", "places365"}
    shares = [
        resources_of(deployment)["num_gpus"]
        for name in neural
        for deployment in built(config, name, 16, 1).values()
    ]
    assert len(shares) == len(neural)
    assert 0.9 < 3 * sum(shares) <= 1


def test_all_shards_and_deployments_that_are_not_named_get_the_share_too(
    config: dict[str, Any],
) -> None:
    application_of(config, "copy")["args"]["shards"] = 3
    for name in ("copy", "caption"):
        application_of(config, name)["deployments"] = []
    share = gpu_share(1, len(neural_applications(config)))
    expected = {"num_cpus": RESERVED_CPUS, "num_gpus": share}
    shards = built(config, "copy", 16, 1)
    assert len(shards) == 3
    for deployment in (*shards.values(), *built(config, "caption", 16, 1).values()):
        assert resources_of(deployment) == expected


def test_a_share_is_never_more_than_one_gpu_and_can_be_reserved() -> None:
    assert gpu_share(8, 2) == 1
    assert gpu_share(0, 2) == gpu_share(1, 0) == 0
    assert [reservable(share) for share in (0.00005, 0.123456, 1, 2.7)] == [0, 0.1234, 1, 2]
