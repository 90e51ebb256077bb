"""The ingress's view of one application, and of the shards of a split retriever."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.layout import layouts_of
from deployments.wire import Description, Kind, tagged_over_shards
from models.base import Extractor
from models.registry import make_extractor

WORDS_ONLY = "TextRetriever"
"""Name of the deployment of retrievers without features of pictures, known before they answer."""


@dataclass(slots=True)
class DirectoryEntry:
    """One application, or one shard of it, as last seen."""

    name: str
    kind: Kind = "retriever"
    of_pictures: bool = True
    """Whether it has features of pictures. If not, it searches annotations, by text only."""
    handle: DeploymentHandle[Any] | None = None
    description: Description | None = None
    extractor: Extractor | None = None
    """Extractor for queries, where they are extracted in the ingress."""
    unreachable_reason: str | None = "starting"
    """Why it is not called now; None when it is."""
    status: str = ""
    replicas: int = 0
    """Number of its replicas that run, over all shards."""
    probe: asyncio.Future[Description | None] | None = None
    """A running `describe`, shared by all calls that take longer than usual."""
    changed: bool = True
    """Whether its status has changed since it was last described."""
    deployment: tuple[str, str] | None = None
    """Of a shard: the names of its deployment and its application."""
    next: DirectoryEntry | None = None
    """The same application under its next model, where it has one."""
    current: DirectoryEntry | None = field(default=None, repr=False, compare=False)
    """Of a next model: the entry of the current model, which is called for both."""
    layouts: dict[int, list[DirectoryEntry]] = field(default_factory=dict)
    """Number of shards → the shards, in order of appearance; several while the number changes."""
    shards: list[DirectoryEntry] = field(default_factory=list)
    """The shards that are called, all of one layout; empty where the application itself is
    called."""

    @property
    def models(self) -> list[DirectoryEntry]:
        """This entry and, where it exists, that of its next model."""
        return [self] if self.next is None else [self, self.next]

    @property
    def fingerprint(self) -> str:
        """Fingerprint of its model; empty until the model is loaded."""
        return self.description.fingerprint if self.description is not None else ""

    def with_fingerprint(self, fingerprint: str | None) -> DirectoryEntry:
        """The entry of the model with this fingerprint; the current model's if neither has it."""
        if self.next is None or fingerprint in (None, self.fingerprint):
            return self
        may_be = self.next.fingerprint in (fingerprint, "" if self.fingerprint else None)
        return self.next if may_be else self

    @property
    def reason(self) -> str | None:
        """Why it can't answer; None if it can."""
        if self.shards:
            return (
                None
                if any(shard.reason is None for shard in self.shards)
                else self.incomplete_reason
            )
        if self.unreachable_reason is not None:
            return self.unreachable_reason
        assert self.description is not None
        if self.description.state == "unavailable":
            return self.description.reason or self.description.state
        # How many pictures are loaded already is not for every caller.
        return None if self.description.state == "ready" else self.description.state

    @property
    def incomplete_reason(self) -> str | None:
        """Why it, or one of its shards, can't answer; None when all can."""
        if not self.shards:
            return self.reason
        reasons = ((shard.name, shard.reason) for shard in self.shards)
        return next((f"{name}: {why}" for name, why in reasons if why is not None), None)

    @property
    def needs_describe(self) -> bool:
        asked = [shard for shards in self.layouts.values() for shard in shards] or [self]
        return any(
            one.changed or any(model.reason is not None for model in one.models) for one in asked
        )

    def update_from_description(self, answer: Description) -> None:
        """Update from the application's own description, which includes its next model."""
        if answer.next is None:
            self.next = None
        elif self.next is None:
            self.next = DirectoryEntry(self.name, current=self)
        for model, said in zip(self.models, (answer, answer.next), strict=False):
            assert said is not None
            if model.description is None or model.fingerprint != said.fingerprint:
                model.extractor = extractor_for(said)
            model.description, model.unreachable_reason, model.changed = said, None, False

    def update_from_status(
        self, deployments: Sequence[str], status: str, replicas: int = 1
    ) -> None:
        """Update from what Serve says of the application."""
        self.replicas = replicas
        self.kind = "annotator" if "Annotator" in deployments else "retriever"
        self.of_pictures = not any(name.startswith(WORDS_ONLY) for name in deployments)
        if status != self.status:
            self.status, self.changed = status, True
            for shards in self.layouts.values():
                for shard in shards:
                    shard.changed = True
        self._update_layouts(layouts_of(deployments))

    def _update_layouts(self, seen: dict[int, list[str]]) -> None:
        """Keep the layouts that still exist and add new ones."""
        if not self.layouts:
            if set(seen) <= {1}:
                return
            whole = replace(self, probe=None, layouts={}, shards=[])
            whole.deployment = seen.get(1, [""])[0], self.name
            if whole.next is not None:
                whole.next.current = whole
            self.layouts[1] = [whole]
        self.layouts = {of: shards for of, shards in self.layouts.items() if of in seen}
        for of, names in seen.items():
            if of not in self.layouts:
                self.layouts[of] = [
                    DirectoryEntry(_name(self.name, number, of), deployment=(name, self.name))
                    for number, name in enumerate(names)
                ]
        self.choose_layout()

    def choose_layout(self) -> None:
        """Use the newest complete layout; without one, stay with the layout in use."""
        if not self.layouts:
            return
        whole = [shards for shards in self.layouts.values() if self._is_ready(shards)]
        if whole:
            self.shards = whole[-1]
        elif self.shards not in self.layouts.values():
            self.shards = list(self.layouts.values())[-1]
        self._summarise_shards()

    def _is_ready(self, shards: Sequence[DirectoryEntry]) -> bool:
        """Whether all shards are ready, also under the next model where that can be used now."""
        asked = [shard.models if self._next_ready else [shard] for shard in shards]
        return all(model.reason is None for models in asked for model in models)

    @property
    def _next_ready(self) -> bool:
        return self.next is not None and self.next.incomplete_reason is None

    def _next_of_shards(self) -> DirectoryEntry | None:
        """The shards in use under their next model; a shard that does not have it yet represents
        itself."""
        if all(shard.next is None for shard in self.shards):
            return None
        if len(self.shards) == 1:
            return self.shards[0].next
        following = [shard.next or shard for shard in self.shards]
        made = DirectoryEntry(self.name, current=self, shards=following)
        made._summarise_shards()
        return made

    def _summarise_shards(self) -> None:
        """Describe the application by its shards."""
        there = [shard for shard in self.shards if shard.unreachable_reason is None]
        described = [one.description for one in there if one.description is not None]
        self.unreachable_reason = None if described else self.incomplete_reason
        self.changed = False
        self.next = self._next_of_shards()
        if not described:
            return
        states = [one.state for one in described] + ["unavailable"] * (
            len(self.shards) - len(there)
        )
        self.extractor = there[0].extractor
        self.description = replace(
            described[0],
            state=next((one for one in ("unavailable", "loading") if one in states), "ready"),
            reason=self.incomplete_reason,
            count=sum(one.count for one in described),
            bytes=sum(one.bytes for one in described),
            applied_seq=min(one.applied_seq for one in described),
            shards=len(self.shards),
            tagged=tagged_over_shards(described),
        )


def extractor_for(description: Description) -> Extractor | None:
    """Extractor for queries of that retriever, where they are extracted in the ingress."""
    if description.place != "ingress" or description.kind != "retriever":
        return None
    extractor = make_extractor(description.extractor, description.options)
    extractor.load()
    return extractor


def _name(application: str, number: int, of: int) -> str:
    return application if of == 1 else f"{application}/{number}"
