"""The weights that a config needs: which they are, where they lie, and how they are carried."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cluster.service.applications import ANNOTATOR, RETRIEVER, built_by
from deployments.settings import RetrieverArgs
from indexes.registry import index_class, index_options
from models.errors import RetrieverUnavailable
from models.registry import make_annotator, make_extractor
from models.weights import (
    WEIGHT_SUFFIXES,
    Located,
    UrlWeights,
    Weights,
    carried_path,
    is_local,
    locate,
    sha256_of,
)

SUMS = "SHA256SUMS"
"""Name of the file in a carried folder that `sha256sum -c` reads."""


@dataclass(frozen=True, slots=True)
class NeededWeights:
    """Weights that an application of the config needs, and what of them lies on this machine."""

    application: str
    weights: Weights
    found: Located | None
    reason: str | None
    """Why they were not found."""

    @property
    def source(self) -> str:
        """Repository, URL or path."""
        given = self.weights
        return given.path or given.url if isinstance(given, UrlWeights) else given.repo

    @property
    def revision(self) -> str:
        """Revision of a repository; empty otherwise."""
        published = not isinstance(self.weights, UrlWeights) and not is_local(self.weights)
        return self.weights.revision if published else ""  # type: ignore[union-attr]

    def row(self) -> dict[str, Any]:
        """All of it as JSON, with the bytes and SHA-256 of each file."""
        files = () if self.found is None else self.found.files
        named = {"application": self.application, "id": self.source, "revision": self.revision}
        listed: list[dict[str, Any]] = [
            {"path": str(path), "bytes": path.stat().st_size, "sha256": sha256_of(path)}
            for path in files
        ]
        where = None if self.found is None else str(self.found.path)
        total = sum(file["bytes"] for file in listed) if listed else None
        shown = {"bytes": total, "path": where, "reason": self.reason, "files": listed}
        return named | shown


def needed_weights(config: Mapping[str, Any], fetch: bool) -> Iterator[NeededWeights]:
    """The weights of all applications, each searched for or, with `fetch`, downloaded now."""
    for application, weights_of in _methods(config):
        try:
            needed = weights_of()
        except RetrieverUnavailable:
            continue  # It is off, like `vocabulary` without words.
        for weights in needed:
            try:
                found, reason = locate(weights, fetch), None
            except RetrieverUnavailable as exc:
                found, reason = None, str(exc)
            yield NeededWeights(application, weights, found, reason)


def _methods(config: Mapping[str, Any]) -> Iterator[tuple[str, Callable[[], Sequence[Weights]]]]:
    """Functions that name the weights of each application's extractors, indexes and annotators."""
    for name, given in built_by(RETRIEVER, config).items():
        for model in RetrieverArgs.model_validate(given).models():
            extractor = make_extractor(model.extractor, model.options)
            yield name, extractor.weights
            options = index_options(extractor.index, model.index)
            yield name, partial(index_class(extractor.index).weights, options)
    for name, given in built_by(ANNOTATOR, config).items():
        yield name, make_annotator(given["annotator"], given.get("options")).weights


def carry(needed: NeededWeights, folder: Path) -> dict[str, str]:
    """Copy found weights into a folder that AMBIENCE_WEIGHTS names elsewhere.

    Returns the SHA-256 of each file by its path in the folder. Weights come last in the folder of a
    repository, so that an interrupted copy does not pass for a whole one.
    """
    found = needed.found
    assert found is not None
    target = carried_path(needed.weights, folder)
    sums = {}
    for file in sorted(found.files, key=lambda path: path.suffix in WEIGHT_SUFFIXES):
        single = isinstance(needed.weights, UrlWeights)
        path = target if single else target / file.relative_to(found.path)
        digest = sha256_of(file)
        if not path.is_file() or sha256_of(path) != digest:
            _copy(file, path)
        sums[path.relative_to(folder).as_posix()] = digest
    return sums


def write_sums(sums: Mapping[str, str], folder: Path) -> None:
    """Write the file that `sha256sum -c` reads."""
    lines = [f"{digest}  {path}\n" for path, digest in sorted(sums.items())]
    (folder / SUMS).write_text("".join(lines))


def _copy(file: Path, target: Path) -> None:
    """Copy beside the target, then rename, so that no reader sees a partial file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    shutil.copyfile(file, part)
    os.replace(part, target)
