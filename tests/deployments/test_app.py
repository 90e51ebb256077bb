"""The application builders and the configuration: a mistake fails at build and is named."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from cluster.jobs.backfill import retriever_specs, stages_of
from cluster.jobs.resources import Resources
from cluster.jobs.settings import JobSettings
from deployments.app import RESERVED_CPUS, build_annotator, build_ingress, build_retriever
from models.errors import AmbienceError
from models.registry import extractor_names

CONFIG = Path(__file__).parents[2] / "serve_config.yaml"
CORES = 2


def config() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    return read


@pytest.mark.parametrize(
    ("args", "name"),
    [
        ({"extractor": "pfash"}, "pfash"),
        ({"extractor": "pfash"}, "phash"),
        ({}, "extractor"),
        ({"extractor": "phash", "optoins": {}}, "optoins"),
        ({"extractor": "phash", "options": {"bitz": 1}}, "bitz"),
        ({"extractor": "color", "index": {"exakt": True}}, "exakt"),
        ({"extractor": "local", "options": {"descriptor": "surf"}}, "descriptor"),
        ({"extractor": "phash", "completion_interval": 0}, "completion_interval"),
    ],
)
def test_a_mistake_in_a_retrievers_arguments_fails_at_build_by_its_name(
    args: dict[str, Any], name: str
) -> None:
    with pytest.raises((ValueError, AmbienceError), match=name):
        build_retriever(args)


@pytest.mark.parametrize(
    ("args", "name"),
    [
        ({}, "annotator"),
        ({"annotator": "captoin"}, "captoin"),
        ({"annotator": "caption", "optoins": {}}, "optoins"),
        ({"annotator": "caption", "completion_interval": 0}, "completion_interval"),
    ],
)
def test_a_mistake_in_an_annotators_arguments_fails_at_build_by_its_name(
    args: dict[str, Any], name: str
) -> None:
    with pytest.raises((ValueError, AmbienceError), match=name):
        build_annotator(args)


def test_a_mistake_in_the_ingresss_arguments_fails_at_build_by_its_name() -> None:
    with pytest.raises(ValueError, match="requierd"):
        build_ingress({"requierd": ["phash"]})


def test_the_config_is_a_serve_config() -> None:
    schema = ServeDeploySchema.model_validate(config())
    assert schema.applications[0].name == "ambience"
    assert len({application.name for application in schema.applications}) == len(
        schema.applications
    )


@pytest.mark.parametrize("application", config()["applications"], ids=lambda one: one["name"])
def test_every_application_of_the_config_builds(application: dict[str, Any]) -> None:
    builder = application["import_path"].removeprefix("deployments.app:")
    builders = {
        "build_ingress": build_ingress,
        "build_retriever": build_retriever,
        "build_annotator": build_annotator,
    }
    built = builders[builder](application["args"])
    (deployment,) = application["deployments"]
    assert built._bound_deployment.name == deployment["name"]
    assert deployment["max_surge_percent"] == 100
    assert (application["route_prefix"] is None) == (builder != "build_ingress")


def test_the_config_serves_the_retrievers_that_need_no_weights() -> None:
    named = {application["args"].get("extractor") for application in config()["applications"]}
    assert {"phash", "color", "local"} <= named <= {None, *extractor_names()}


def test_everything_reserved_fits_two_cores_during_an_upgrade_and_a_backfill() -> None:
    reserved = 0.0
    for application in config()["applications"]:
        for deployment in application["deployments"]:
            options = deployment.get("ray_actor_options") or {}
            each = options.get("num_cpus", RESERVED_CPUS)
            reserved += deployment.get("num_replicas", 1) * each
    resources = Resources(cpus=CORES, gpus=0, free_gpus=0, readers=CORES)
    stages = stages_of(retriever_specs(config()), JobSettings("lmdb:unused", resources))
    job = sum(stage.workers * stage.cpus for stage in stages)
    assert 2 * reserved + job <= CORES


@pytest.mark.parametrize("builder", [build_retriever, build_annotator, build_ingress])
def test_a_builder_takes_what_serve_gives_it_one_dictionary(builder: Callable[..., Any]) -> None:
    """`serve deploy` and KubeRay refuse any other signature."""
    assert len(inspect.signature(builder).parameters) == 1
