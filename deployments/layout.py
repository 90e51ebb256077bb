"""Deployments of a retriever's application: one, or one for each shard.

The name of a deployment says which shard of how many it is, so that an ingress never mixes two
layouts.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from indexes.replica.sharding import WHOLE, Shard

SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)")


def deployments_of(base: str, of: int) -> list[str]:
    """Deployment names for so many shards: `Retriever`, or `Retriever-0-of-3` and so on."""
    return [base] if of == 1 else [f"{base}-{number}-of-{of}" for number in range(of)]


def shard_of(deployment: str) -> Shard:
    """The shard of a deployment with this name."""
    named = SHARD.fullmatch(deployment)
    return Shard(int(named[2]), int(named[3])) if named else WHOLE


def layouts_of(deployments: Iterable[str]) -> dict[int, list[str]]:
    """The complete layouts among these deployments: number of shards → their names, in order."""
    found: defaultdict[int, dict[int, str]] = defaultdict(dict)
    for name in deployments:
        shard = shard_of(name)
        found[shard.of][shard.number] = name
    return {
        of: [names[number] for number in range(of)]
        for of, names in found.items()
        if len(names) == of
    }
