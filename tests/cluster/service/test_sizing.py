"""What the config leaves open is filled in by the size of the machine."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from cluster.cli.main import default_config
from cluster.service.sizing import gpu_share, ingress_replicas, neural_applications, sized
from deployments.app import RESERVED_CPUS


@pytest.fixture
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(default_config().read_text())
    return loaded


def deployment_of(config: dict[str, Any], name: str) -> dict[str, Any]:
    found = {one["name"]: one for one in config["applications"]}
    deployment: dict[str, Any] = found[name]["deployments"][0]
    return deployment


def test_the_number_of_ingress_replicas_grows_with_the_cores(config: dict[str, Any]) -> None:
    assert [ingress_replicas(cores) for cores in (1, 2, 4, 8, 16, 64)] == [1, 1, 1, 2, 4, 4]
    assert deployment_of(sized(config, 16, 0), "ambience")["num_replicas"] == 4


@pytest.mark.parametrize(
    "given", [{"num_replicas": 3}, {"autoscaling_config": {"max_replicas": 5}}]
)
def test_what_the_config_says_stands(config: dict[str, Any], given: dict[str, Any]) -> None:
    deployment_of(config, "ambience").update(given)
    deployment_of(config, "global")["ray_actor_options"] = {"num_gpus": 0.5}
    made = sized(config, 16, 1)
    assert deployment_of(made, "ambience").items() >= given.items()
    assert len({"num_replicas", "autoscaling_config"} & deployment_of(made, "ambience").keys()) == 1
    options = deployment_of(made, "global")["ray_actor_options"]
    assert options == {"num_cpus": RESERVED_CPUS, "num_gpus": 0.5}


def test_without_a_gpu_none_is_asked_for(config: dict[str, Any]) -> None:
    assert "num_gpus" not in str(sized(config, 16, 0))


def test_neural_applications_share_a_gpu_so_that_upgrades_and_jobs_fit_too(
    config: dict[str, Any],
) -> None:
    neural = neural_applications(config)
    assert set(neural) == {"global", "image_text", "copy", "caption", "places365"}
    made = sized(config, 16, 1)
    shares = [
        deployment_of(made, name)["ray_actor_options"]["num_gpus"]
        for name in (one["name"] for one in made["applications"])
        if "ray_actor_options" in deployment_of(made, name)
    ]
    assert len(shares) == len(neural)
    assert 0.9 < 3 * sum(shares) <= 1


def test_a_share_is_never_more_than_one_gpu() -> None:
    assert gpu_share(8, 2) == 1
    assert gpu_share(0, 2) == gpu_share(1, 0) == 0
