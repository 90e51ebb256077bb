"""The deployments of a retriever's application: one, or one for each shard.

A deployment's name says which shard of how many it is, so an ingress can never mix two layouts.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from indexes.replica.sharding import WHOLE, Shard

SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)")


def deployments_of(base: str, of: int) -> list[str]:
    """The names of a layout of so many shards: `Retriever`, or `Retriever-0-of-3` and so on."""
    return [base] if of == 1 else [f"{base}-{number}-of-{of}" for number in range(of)]


def shard_of(deployment: str) -> Shard:
    """What a deployment of this name holds."""
    named = SHARD.fullmatch(deployment)
    return Shard(int(named[2]), int(named[3])) if named else WHOLE


def layouts_of(deployments: Iterable[str]) -> dict[int, list[str]]:
    """The whole layouts among these deployments: number of shards → their names, in order."""
    found: defaultdict[int, dict[int, str]] = defaultdict(dict)
    for name in deployments:
        shard = shard_of(name)
        found[shard.of][shard.number] = name
    return {
        of: [names[number] for number in range(of)]
        for of, names in found.items()
        if len(names) == of
    }
