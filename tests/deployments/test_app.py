"""The application builders and the configuration: a mistake fails at build and is named."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from cluster.jobs.backfill import retriever_specs, stages_of
from cluster.jobs.resources import Resources
from cluster.jobs.settings import JobSettings
from cluster.service.sizing import GPU_SHARES, neural_applications
from deployments.app import RESERVED_CPUS, build_annotator, build_ingress, build_retriever
from models.errors import AmbienceError
from models.neural import import_torchvision, import_transformers
from models.registry import extractor_names

ROOT = Path(__file__).parents[2]
PROFILES = ["serve_config.yaml", "serve_config.lean.yaml", "serve_config.gpu.yaml"]
CORES = 2
REVISION = re.compile(r"[0-9a-f]{7}|[0-9a-f]{40}")


def read(profile: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / profile).read_text())
    return config


@pytest.fixture(params=PROFILES)
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    return read(request.param)


def applications() -> Iterator[Any]:
    for profile in PROFILES:
        for application in read(profile)["applications"]:
            yield pytest.param(application, id=f"{profile}:{application['name']}")


def named_options(options: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key in nested options, with its value."""
    if isinstance(options, dict):
        for key, value in options.items():
            yield key, value
            yield from named_options(value)


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
        ({"extractor": "local", "index": {"lightglue": {"wieghts": "x"}}}, "wieghts"),
        (
            {"extractor": "local", "options": {"descriptor": "xfeat"}, "index": {"lightglue": {}}},
            "LightGlue matches rootsift",
        ),
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


def test_all_shipped_configs_are_checked() -> None:
    assert sorted(path.name for path in ROOT.glob("serve_config*.yaml")) == sorted(PROFILES)


def test_the_config_is_a_serve_config(config: dict[str, Any]) -> None:
    schema = ServeDeploySchema.model_validate(config)
    assert schema.applications[0].name == "ambience"
    assert len({application.name for application in schema.applications}) == len(
        schema.applications
    )


@pytest.mark.parametrize("application", [*applications()])
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


def test_models_of_the_hub_have_a_revision_that_names_one_commit(config: dict[str, Any]) -> None:
    for application in config["applications"]:
        given = dict(named_options(application["args"]))
        if "model" in given:
            assert REVISION.fullmatch(given["revision"]), application["name"]
            assert re.fullmatch(r"[\w.-]+/[\w.-]+", given["model"])


def test_the_config_serves_the_retrievers_that_need_no_weights(config: dict[str, Any]) -> None:
    named = {application["args"].get("extractor") for application in config["applications"]}
    assert {"phash", "color", "local"} <= named <= {None, *extractor_names()}


def models_page() -> str:
    return (ROOT / "docs" / "models.md").read_text()


def test_every_model_of_a_config_is_documented_with_its_revision(config: dict[str, Any]) -> None:
    for application in config["applications"]:
        given = dict(named_options(application["args"]))
        if "model" in given:
            row = rf"\| `{re.escape(given['model'])}` \| {given['revision']}\b"
            assert re.search(row, models_page()), application["name"]


def documented_options() -> Iterator[Any]:
    """Yield the arguments of each application, or part of one, that the page shows."""
    for block in re.findall(r"```yaml\n(.*?)```", models_page(), re.DOTALL):
        shown = yaml.safe_load(block)
        part = shown[0] if isinstance(shown, list) else shown
        yield part.get("args", part)


@pytest.mark.parametrize("args", [*documented_options()])
def test_what_the_models_page_shows_is_accepted(args: dict[str, Any]) -> None:
    if "annotator" in args:
        assert build_annotator(args)._bound_deployment.name == "Annotator"
    else:
        assert build_retriever(args)._bound_deployment.name == "Retriever"


def reserved(config: dict[str, Any], what: str, default: float) -> float:
    """Return what all replicas reserve of a resource."""
    total = 0.0
    for application in config["applications"]:
        for deployment in application["deployments"]:
            options = deployment.get("ray_actor_options") or {}
            total += deployment.get("num_replicas", 1) * options.get(what, default)
    return total


def test_everything_reserved_fits_two_cores_during_an_upgrade_and_a_backfill(
    config: dict[str, Any],
) -> None:
    resources = Resources(cpus=CORES, gpus=0, free_gpus=0, readers=CORES)
    stages = stages_of(retriever_specs(config), JobSettings("lmdb:unused", resources))
    job = sum(stage.workers * stage.cpus for stage in stages)
    assert 2 * reserved(config, "num_cpus", RESERVED_CPUS) + job <= CORES


def test_what_the_gpu_profile_reserves_fits_three_times_into_one_gpu() -> None:
    """For the replicas, for their replacements, and for jobs."""
    config = read("serve_config.gpu.yaml")
    assert GPU_SHARES * reserved(config, "num_gpus", 0) <= 1
    for application in config["applications"]:
        (deployment,) = application["deployments"]
        on_gpu = application["name"] in neural_applications(config)
        assert ("ray_actor_options" in deployment) == on_gpu, application["name"]


def memory_table() -> dict[str, tuple[int, ...]]:
    """Return MB by application, or by application and model, as the documentation gives them."""
    page = (ROOT / "docs" / "reference" / "configuration.md").read_text()
    table = page.partition("\n## Memory\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line[:2] == "| "][1:]
    return {
        name.strip(): tuple(
            int(cell.split()[0].strip(";").replace(",", "")) for cell in cells if cell.strip()
        )
        for name, *cells in rows
    }


SHIPPED = ("(CLIP ViT-B/16)", "(BEiT base)", "(BLIP base)")
LARGE = ("(PE-Core-L/14)", "(DINOv2 base)", "(Florence-2 base)")
"""The networks of two profiles, as the table names them."""


@pytest.mark.parametrize(
    ("profile", "column", "networks"),
    [
        ("serve_config.yaml", -1, SHIPPED),
        ("serve_config.yaml", 0, SHIPPED),
        ("serve_config.lean.yaml", -1, ("(PE-Core-S/16)",)),
        ("serve_config.lean.yaml", 0, ("(PE-Core-S/16)",)),
        ("serve_config.gpu.yaml", -1, LARGE),
        ("serve_config.gpu.yaml", 0, LARGE),
    ],
)
def test_the_documented_memory_of_a_profile_is_the_sum_of_its_applications(
    profile: str, column: int, networks: tuple[str, ...]
) -> None:
    table = memory_table()
    idle = table["phash, color, local, text, ocr (idle)"][0]
    total = table["ingress"][0] + table["Ray's own processes and the command"][0]
    for application in read(profile)["applications"][1:]:
        name = application["name"]
        models = [row for row in table if row == name or row.startswith(f"{name} (")]
        chosen = [row for row in models if len(models) == 1 or row.endswith(networks)]
        total += table[chosen[0]][column] if chosen else idle
    (documented,) = (row for row in table if row.startswith(f"all of {profile}"))
    assert table[documented][column] == pytest.approx(total, abs=50)


TORCH_MB = 700
"""Most memory of torch, its libraries, and what a picture takes beside the weights."""


def parameters(build: Callable[[], Any]) -> int:
    """Return the number of parameters of a network that takes no memory."""
    import torch

    with torch.device("meta"):
        return sum(one.numel() for one in build().parameters())


def florence_base() -> Any:
    """Return the architecture of Florence-2 base."""
    transformers = import_transformers()
    wide = {"num_heads": (4, 8, 16, 32), "num_groups": (4, 8, 16, 32), "projection_dim": 768}
    vision = transformers.Florence2VisionConfig(
        depths=(1, 1, 9, 1), embed_dim=(128, 256, 512, 1024), **wide
    )
    layers = {"encoder_layers": 6, "decoder_layers": 6}
    inner = {"encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072}
    text = transformers.BartConfig(vocab_size=51289, d_model=768, **layers, **inner)
    config = transformers.Florence2Config(
        vision_config=vision.to_dict(), text_config=text.to_dict()
    )
    return transformers.Florence2ForConditionalGeneration(config)


def dinov2_base() -> Any:
    """Return the architecture of DINOv2 base with registers."""
    transformers = import_transformers()
    config = transformers.Dinov2WithRegistersConfig(image_size=518)
    return transformers.Dinov2WithRegistersModel(config)


def pe_core_large() -> Any:
    """Return the architecture of PE-Core-L/14."""
    import_torchvision()
    import open_clip

    return open_clip.create_model("PE-Core-L-14-336", pretrained=None, device="meta")


@pytest.mark.parametrize(
    ("row", "build", "millions"),
    [
        ("image_text (PE-Core-L/14)", pe_core_large, 671),
        ("global (DINOv2 base)", dinov2_base, 87),
        ("caption (Florence-2 base)", florence_base, 231),
    ],
)
def test_a_network_of_the_gpu_profile_fits_the_memory_that_is_documented(
    row: str, build: Callable[[], Any], millions: int
) -> None:
    count = parameters(build)
    assert count == pytest.approx(millions * 1e6, rel=0.01)
    documented = memory_table()[row]
    least = documented[0] + 4 * count / 1e6
    assert least <= documented[-1] <= least + TORCH_MB


def test_the_lean_profile_takes_less_than_4_gb() -> None:
    assert max(memory_table()["all of serve_config.lean.yaml"]) < 4000


@pytest.mark.parametrize("builder", [build_retriever, build_annotator, build_ingress])
def test_a_builder_takes_what_serve_gives_it_one_dictionary(builder: Callable[..., Any]) -> None:
    """`serve deploy` and KubeRay refuse any other signature."""
    assert len(inspect.signature(builder).parameters) == 1
