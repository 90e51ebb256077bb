"""From `serve_config.yaml` to running applications.

The file is a Serve config: `serve deploy` and KubeRay take it unchanged. Here the applications are
built in this process instead of in one Ray task each, which halves a cold start and makes a
misspelt key fail at once. As with Serve's own deploys, an application restarts only if the inputs
of its replicas (import path, arguments, our version) have changed.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
from collections.abc import Collection, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from cluster.service.data_folder import CannotStart
from deployments.keys import read_keys
from deployments.settings import IngressArgs, is_loopback
from indexes.store.base import Store
from indexes.store.url import open_store
from models.base import Extractor
from models.errors import AmbienceError, RetrieverUnavailable
from models.pictures.limits import DecodeLimits
from models.registry import make_extractor

RETRIEVER, ANNOTATOR, INGRESS = "build_retriever", "build_annotator", "build_ingress"
"""The builders in `deployments.app`."""
KEPT = ("num_replicas", "autoscaling_config", "ray_actor_options", "max_surge_percent")
"""Settings of a deployment that the config may set."""

Deployments = dict[str, dict[str, Any]]
"""Settings of the deployments of one application, by name."""


def read_config(path: Path) -> dict[str, Any]:
    """Read the YAML of all applications. Raises CannotStart, saying what is wrong with it."""
    try:
        config = yaml.safe_load(path.read_text())
    except OSError as exc:
        raise CannotStart(f"can't read {path}: {exc.strerror}; name it with --config") from exc
    except yaml.YAMLError as exc:
        raise CannotStart(f"{path} is no YAML: {exc}") from exc
    if not isinstance(config, dict) or not isinstance(config.get("applications"), list):
        raise CannotStart(f"{path} has no list of `applications`")
    return config


def built_by(builder: str, config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Arguments of the applications of a config that use this builder, by name."""
    return {
        application["name"]: application.get("args") or {}
        for application in config["applications"]
        if str(application.get("import_path", "")).endswith(f":{builder}")
    }


def decode_limits(config: Mapping[str, Any]) -> DecodeLimits:
    """The limits of the ingress, for jobs that decode the same pictures."""
    return _ingress_args(config).decode_limits()


def required_retrievers(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The retrievers without which the ingress is not ready."""
    return _ingress_args(config).required


def _ingress_args(config: Mapping[str, Any]) -> IngressArgs:
    return IngressArgs.model_validate(next(iter(built_by(INGRESS, config).values()), {}))


def check_keys(config: Mapping[str, Any], host: str, no_keys: bool) -> None:
    """Refuse to listen on other than loopback without API keys. Raises CannotStart."""
    for name, given in built_by(INGRESS, config).items():
        try:
            args = IngressArgs.model_validate(given)
            if path := args.keys_path():
                read_keys(path)
        except (OSError, ValueError, AmbienceError) as exc:
            raise CannotStart(f"application {name}: {exc}") from exc
        if not (args.has_keys() or no_keys or is_loopback(host)):
            raise CannotStart(
                f"on {host} everyone who reaches the port could read, add and delete images: make "
                "a key with `ambience key NAME`, or start with --no-keys (AMBIENCE_NO_KEYS=1)"
            )


def gpus_of(config: Mapping[str, Any], name: str) -> float | None:
    """GPUs that the config reserves for each replica of an application; None where it says
    nothing."""
    deployments = [
        deployment
        for application in config["applications"]
        if application["name"] == name
        for deployment in application.get("deployments") or ()
    ]
    options = [one.get("ray_actor_options") or {} for one in deployments]
    return next((float(one["num_gpus"]) for one in options if "num_gpus" in one), None)


def check_spaces(config: dict[str, Any], reindex: bool) -> None:
    """Refuse a changed extractor over stored features, unless re-indexing is requested."""
    from deployments.settings import store_url

    store = open_store(store_url(None))
    try:
        for name, given in built_by(RETRIEVER, config).items():
            _check_space(store, name, given, reindex)
    finally:
        store.close()


def _check_space(store: Store, name: str, given: Mapping[str, Any], reindex: bool) -> None:
    """Check that there are features of the model that searches of one retriever would use."""
    from deployments.settings import RetrieverArgs

    try:
        models = RetrieverArgs.model_validate(given).models()
    except ValueError as exc:
        raise CannotStart(f"application {name}: {exc}") from exc
    try:
        fingerprints = [make_extractor(one.extractor, one.options).fingerprint for one in models]
    except RetrieverUnavailable:
        return  # Without its weights nobody knows; it indexes nothing until it has them.
    active = store.active().get(name, fingerprints[0])
    if active not in fingerprints and reindex:
        store.activate(name, None)
    stored = {space.fingerprint for space in store.spaces() if space.kind == name}
    if reindex or not stored:
        return
    if active not in fingerprints:
        raise CannotStart(
            f"searches of `{name}` use a model that its arguments don't have: put it back, "
            "or start with --reindex"
        )
    if active not in stored:
        raise CannotStart(
            f"the options of `{name}` begin a new feature space, in which no "
            "picture is indexed yet: put them back and give the new ones as `next`, or start with "
            "--reindex and run `ambience backfill` over your pictures"
        )


def weightless_retrievers(config: Mapping[str, Any]) -> dict[str, Extractor]:
    """The retrievers of pictures that need no weights.

    Raises CannotStart for an unknown method or option.
    """
    return {
        name: extractor
        for name, extractor in configured_extractors(config).items()
        if extractor.of_pictures and not extractor.weights()
    }


def configured_extractors(config: Mapping[str, Any]) -> dict[str, Extractor]:
    """The extractors of the retrievers. Raises CannotStart for an unknown method or option."""
    found = {}
    for name, args in built_by(RETRIEVER, config).items():
        try:
            found[name] = make_extractor(str(args.get("extractor")), args.get("options"))
        except AmbienceError as exc:
            raise CannotStart(f"application {name}: {exc}") from exc
    return found


def replaced_shards(config: Mapping[str, Any]) -> dict[str, Deployments]:
    """Running shards of retrievers whose number of shards differs in this config."""
    from deployments.layout import layouts_of
    from deployments.statuses import applications

    there = applications()
    found = {}
    for name, args in built_by(RETRIEVER, config).items():
        running = there.get(name, {}).get("deployments", {})
        old = [
            deployment
            for of, names in layouts_of(running).items()
            if of != args.get("shards", 1)
            for deployment in names
        ]
        if old:
            found[name] = {one: _settings(running[one]["deployment_config"]) for one in old}
    return found


def apply(
    config: dict[str, Any],
    only: Collection[str] | None = None,
    beside: Mapping[str, Deployments] | None = None,
    usual: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Deploy the applications of the config, or some of them; with all, remove those that it does
    not name.

    `beside` are deployments that keep running beside those of the config. `usual` are settings of
    all deployments of an application, where the config gives none. Ray must be connected.
    """
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    schema = validated(config)
    targets = [
        target_of(
            application,
            (beside or {}).get(application.name, {}),
            (usual or {}).get(application.name, {}),
        )
        for application in schema.applications
        if only is None or application.name in only
    ]
    serve.start(proxy_location=schema.proxy_location, http_options={"host": "127.0.0.1"})
    serve.run_many(
        targets, wait_for_ingress_deployment_creation=False, wait_for_applications_running=False
    )
    if only is None:
        for gone in serve.status().applications.keys() - {target.name for target in targets}:
            serve.delete(gone)


def validated(config: Mapping[str, Any]) -> Any:
    """Validate the config by Serve's schema. Raises CannotStart, saying what is wrong with it."""
    from ray.serve.schema import ServeDeploySchema

    try:
        return ServeDeploySchema.model_validate(config)
    except ValueError as exc:
        raise CannotStart(f"the config of the applications: {exc}") from exc


def target_of(application: Any, beside: Deployments, usual: Mapping[str, Any]) -> Any:
    """One application of the schema, built, with its deployments' settings; see `apply`."""
    from ray.serve import Application
    from ray.serve.api import RunTarget

    module, _, builder = application.import_path.partition(":")
    args = application.args | ({"beside": list(beside)} if beside else {})
    try:
        built = getattr(importlib.import_module(module), builder)(args)
    except (ImportError, AttributeError, ValueError, AmbienceError) as exc:
        raise CannotStart(f"application {application.name}: {exc}") from exc
    others = [one for one in built._bound_deployment.init_args if isinstance(one, Application)]
    bound: dict[str, Any] = {one._bound_deployment.name: one for one in (built, *others)}
    settings: Deployments = {name: beside.get(name, {}) for name in bound}
    for deployment in application.deployments:
        if deployment.name not in bound:
            raise CannotStart(
                f"application {application.name} has no {deployment.name}; its deployments are "
                f"{', '.join(bound)}"
            )
        settings[deployment.name] |= deployment.model_dump(exclude_unset=True, exclude={"name"})
    for name, one in bound.items():
        deployment = one._bound_deployment
        options = _with_usual(settings[name], usual, deployment.ray_actor_options)
        one._bound_deployment = deployment.options(
            **options, version=_version(application), _internal=True
        )
    return RunTarget(built, application.name, application.route_prefix)


def _with_usual(
    given: Mapping[str, Any], usual: Mapping[str, Any], resources: Mapping[str, Any]
) -> dict[str, Any]:
    """Given settings of a deployment over the usual ones, with its own resources where none of
    their kind is given."""
    settings = {**usual, **given}
    if "autoscaling_config" in given:
        settings.pop("num_replicas", None)
    asked = [resources, *(one.get("ray_actor_options") or {} for one in (usual, given))]
    return settings | {"ray_actor_options": {key: one[key] for one in asked for key in one}}


def _settings(running: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that a running deployment keeps."""
    kept = {name: running[name] for name in KEPT if running.get(name) is not None}
    if "autoscaling_config" in kept:
        kept.pop("num_replicas", None)
    return kept


def _version(application: Any) -> str:
    """Version of what a replica is made of. The deployment's name tells which shard it is."""
    args = {name: value for name, value in application.args.items() if name != "shards"}
    made_of = [application.import_path, args, version("ambience")]
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]
