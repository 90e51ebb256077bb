"""The manifests, checked against published schemas and the files that they name."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Annotated, Any, Literal

import kubernetes_validate
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from dockerfile_parse import DockerfileParser
from jsonschema import Draft7Validator
from pydantic import BaseModel, ConfigDict, Field
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from cluster.cli.main import default_config
from cluster.manifests import printing
from cluster.service.applications import read_config
from cluster.service.data_folder import CannotStart
from cluster.service.environment import RAY_ENVIRONMENT
from tests.conftest import AMBIENCE, ROOT

MANIFESTS = ROOT / "cluster" / "manifests"
KUBERNETES = "1.31"
THEIR_OWN = {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}
"""Variables that each kind of cluster sets in its own way."""


class Fields(BaseModel):
    """The fields of ray.io/v1 that a manifest may use; any other field is an error.

    Their types and values are those of KubeRay's published CRD (rayservices.ray.io, as of 1.5).
    """

    model_config = ConfigDict(extra="forbid", strict=True)


class HeadGroup(Fields):
    rayStartParams: dict[str, str]  # noqa: N815
    template: dict[str, Any]


class WorkerGroup(HeadGroup):
    groupName: str  # noqa: N815
    minReplicas: int  # noqa: N815
    maxReplicas: int  # noqa: N815


class AutoscalerOptions(Fields):
    idleTimeoutSeconds: Annotated[int, Field(lt=2**31)]  # noqa: N815


class AuthOptions(Fields):
    mode: Literal["disabled", "token"]


class Cluster(Fields):
    rayVersion: str  # noqa: N815
    enableInTreeAutoscaling: bool  # noqa: N815
    autoscalerOptions: AutoscalerOptions  # noqa: N815
    authOptions: AuthOptions  # noqa: N815
    headGroupSpec: HeadGroup  # noqa: N815
    workerGroupSpecs: list[WorkerGroup]  # noqa: N815


class Spec(Fields):
    serveConfigV2: str  # noqa: N815
    rayClusterConfig: Cluster  # noqa: N815
    excludeHeadPodFromServeSvc: bool  # noqa: N815


def rayservice() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(printing.rayservice(read_config(default_config())))
    return loaded


@pytest.fixture
def spec() -> Spec:
    return Spec.model_validate(rayservice()["spec"])


def groups(spec: Spec) -> list[HeadGroup]:
    return [spec.rayClusterConfig.headGroupSpec, *spec.rayClusterConfig.workerGroupSpecs]


def environment_of(group: HeadGroup) -> dict[str, Any]:
    (container,) = group.template["spec"]["containers"]
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


def pinned(package: str) -> str:
    lock = (ROOT / "requirements.lock").read_text()
    found = re.search(rf"^{package}==([^ \n]+)", lock, re.MULTILINE)
    assert found is not None
    return found[1]


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((MANIFESTS / name).read_text())
    return loaded


# --- KubeRay -------------------------------------------------------------------------------------


def test_the_rayservice_has_only_fields_that_kuberay_knows(spec: Spec) -> None:
    whole = rayservice()
    assert (whole["apiVersion"], whole["kind"]) == ("ray.io/v1", "RayService")
    assert spec.rayClusterConfig.authOptions.mode == "token"
    names = [group.groupName for group in spec.rayClusterConfig.workerGroupSpecs]
    assert names == ["cpu", "gpu"]
    for group in spec.rayClusterConfig.workerGroupSpecs:
        assert group.minReplicas <= group.maxReplicas


def test_every_pod_of_the_rayservice_is_one_that_kubernetes_knows(spec: Spec) -> None:
    for group in groups(spec):
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "template": group.template}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_a_misspelt_field_of_a_pod_would_be_seen(spec: Spec) -> None:
    template = spec.rayClusterConfig.headGroupSpec.template
    template["spec"]["containers"][0]["enviroment"] = []
    pod = {"apiVersion": "v1", "kind": "PodTemplate", "template": template}
    with pytest.raises(kubernetes_validate.ValidationError, match="enviroment"):
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_the_rayservice_names_the_pinned_ray_and_no_secret(spec: Spec) -> None:
    assert spec.rayClusterConfig.rayVersion == pinned("ray")
    for group in groups(spec):
        store = environment_of(group)["AMBIENCE_STORE"]
        assert set(store) == {"secretKeyRef"}


def test_pods_take_as_much_as_they_may_and_gpus_only_where_a_group_has_them(spec: Spec) -> None:
    for group in groups(spec):
        (container,) = group.template["spec"]["containers"]
        resources = container["resources"]
        assert resources["requests"] == resources["limits"]
        has_gpus = "nvidia.com/gpu" in resources["limits"]
        assert has_gpus == container["image"].endswith("-gpu")
        assert group.template["spec"]["securityContext"]["runAsNonRoot"]


def test_the_rayservice_carries_the_applications_of_the_config_built_as_everywhere(
    spec: Spec,
) -> None:
    config = read_config(default_config())
    schema = ServeDeploySchema.model_validate(yaml.safe_load(spec.serveConfigV2))
    expected = ServeDeploySchema.model_validate(config)
    for carried, shipped in zip(schema.applications, expected.applications, strict=True):
        args = dict(carried.args)
        assert args.pop("listen", None) is (False if shipped.route_prefix == "/" else None)
        assert ("ambience-serve-svc" in args.pop("allowed_hosts", ())) is (
            shipped.route_prefix == "/"
        )
        assert carried.model_copy(update={"args": args}) == shipped
    assert schema.proxy_location == "EveryNode"


def test_a_cluster_keeps_what_the_config_says_of_http_and_deployments() -> None:
    config = read_config(default_config())
    config["http_options"] = {"host": "127.0.0.1", "port": 9000}
    config["applications"][1]["args"]["shards"] = 4
    made = yaml.safe_load(printing.serve_config(config))
    assert made["http_options"] == config["http_options"]
    assert made["applications"][1] == config["applications"][1]
    assert "listen" not in config["applications"][0]["args"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"applications": []}, "build_ingress"),
        ({"http_options": {"port": "many"}}, "http_options"),
    ],
)
def test_a_config_that_no_cluster_would_take_is_refused(
    change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(CannotStart, match=reason):
        printing.rayservice(read_config(default_config()) | change)


def test_the_command_prints_the_manifest() -> None:
    ran = subprocess.run(
        [str(AMBIENCE), "manifest", "--config", str(default_config())],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == printing.rayservice(read_config(default_config()))


# --- ray up --------------------------------------------------------------------------------------


def test_the_cluster_of_own_machines_is_one_that_ray_up_takes() -> None:
    config = prepare_config(load("ray-cluster.yaml"))
    validate_config(config)
    assert config["max_workers"] == len(config["provider"]["worker_ips"])


def test_both_kinds_of_cluster_set_the_same_variables(spec: Spec) -> None:
    options = load("ray-cluster.yaml")["docker"]["run_options"]
    given = dict(one.removeprefix("--env=").split("=", 1) for one in options if "--env=" in one)
    for group in groups(spec):
        wanted = {
            name: value
            for name, value in environment_of(group).items()
            if name not in THEIR_OWN and isinstance(value, str)
        }
        assert {name: given[name] for name in given.keys() - THEIR_OWN} == wanted
    alike = {"RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH", "RAY_SERVE_THROUGHPUT_OPTIMIZED"}
    assert {name: given[name] for name in alike} == {name: RAY_ENVIRONMENT[name] for name in alike}


def test_ray_reads_every_variable_that_is_set_for_it(spec: Spec) -> None:
    import ray

    sources = [Path(ray.__file__).parent / "_raylet.so", *Path(ray.__file__).parent.rglob("*.py")]
    names = [name for name in environment_of(groups(spec)[0]) if name.startswith("RAY_")]
    assert names
    missing = {name.encode() for name in names}
    for source in sources:
        missing -= {name for name in missing if name in source.read_bytes()}
    assert missing == set()


# --- the container image and Compose -------------------------------------------------------------


@pytest.fixture
def dockerfile(tmp_path: Path) -> DockerfileParser:
    # The parser opens its file for writing, so it gets a copy.
    copy = tmp_path / "Dockerfile"
    copy.write_text((MANIFESTS / "Dockerfile").read_text())
    return DockerfileParser(str(copy))


def values(dockerfile: DockerfileParser, instruction: str) -> list[str]:
    return [one["value"] for one in dockerfile.structure if one["instruction"] == instruction]


def ignored(path: str) -> bool:
    """Return whether .dockerignore excludes the path: it excludes all that no `!` line names."""
    lines = (ROOT / ".dockerignore").read_text().split()
    return f"!{path}" not in lines


def test_everything_that_is_copied_into_the_image_is_there(dockerfile: DockerfileParser) -> None:
    copied = [value for value in values(dockerfile, "COPY") if "--from" not in value]
    sources = [source for value in copied for source in value.split()[:-1]]
    assert len(sources) >= 10
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not ignored(source), source


def test_the_image_runs_as_an_unprivileged_user_what_exists(dockerfile: DockerfileParser) -> None:
    assert values(dockerfile, "USER")[-1] not in ("root", "0")
    command = json.loads(values(dockerfile, "CMD")[-1])
    scripts = re.findall(r"^(\w+) = ", (ROOT / "pyproject.toml").read_text().split("scripts]")[1])
    assert command[0] in [AMBIENCE.name, *scripts]
    ran = subprocess.run([str(AMBIENCE), *command[1:], "--help"], capture_output=True, check=False)
    assert ran.returncode == 0
    assert values(dockerfile, "HEALTHCHECK")


def test_the_image_is_of_the_python_that_the_locks_are_of(dockerfile: DockerfileParser) -> None:
    bases = {value.split()[0] for value in values(dockerfile, "FROM")}
    (base,) = bases
    assert base.startswith("python:3.11-")


def test_make_knows_what_the_image_asks_of_it(dockerfile: DockerfileParser) -> None:
    (run,) = [value for value in values(dockerfile, "RUN") if "make " in value]
    found = re.search(r"make (\w+) (VENV=\S+)", run)
    assert found is not None
    shown = subprocess.run(
        ["make", "--dry-run", found[1], "VENV=.venv"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"MAKEFLAGS": ""},
    )
    assert "models.pictures.codecs" in shown.stdout


def test_compose_is_what_the_compose_specification_allows() -> None:
    Draft7Validator(get_builtin_schema("vendor.compose-spec")).validate(load("compose.yaml"))


def test_compose_binds_loopback_waits_for_the_store_and_holds_no_password() -> None:
    services = load("compose.yaml")["services"]
    assert [
        port.startswith("${AMBIENCE_HOST:-127.0.0.1}") for port in services["ambience"]["ports"]
    ]
    assert "ports" not in services["store"]
    assert services["ambience"]["depends_on"] == {"store": {"condition": "service_healthy"}}
    for service in services.values():
        assert service["healthcheck"]["test"]
        for name, value in service["environment"].items():
            assert "PASSWORD" not in name or value.startswith("${POSTGRES_PASSWORD:?")
    assert ":" not in services["ambience"]["environment"]["AMBIENCE_STORE"].split("//")[1]


def test_compose_builds_the_image_with_arguments_that_it_has(dockerfile: DockerfileParser) -> None:
    build = load("compose.yaml")["services"]["ambience"]["build"]
    known = {value.split("=")[0] for value in values(dockerfile, "ARG")}
    assert set(build["args"]) <= known
    assert (MANIFESTS / build["context"] / build["dockerfile"]).is_file()
