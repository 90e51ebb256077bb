"""Pictures of a batch that are added unless there is a copy, in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from deployments.ingress.adding import Added, CheckAgain, ReadyWrite
from deployments.ingress.banning import feature_kinds
from deployments.ingress.batches.members import Member, Members
from deployments.ingress.copies import Copy, CopyCheck, duplicate
from deployments.ingress.gateway import Gateway
from deployments.tombstones.index import FeatureKind
from indexes.store.base import Guard
from models.errors import AmbienceError, InvalidInput, KeyLimited
from models.machine import cores

Stored = list[Copy] | AmbienceError
"""The stored copies of a picture, or why they are not known."""
Verdict = Copy | Member | AmbienceError | None
"""What refuses a picture; None if nothing does."""


@dataclass(frozen=True, slots=True)
class CheckedWrite:
    """An add that is ready to be written if its check finds no copy."""

    ready: ReadyWrite
    check: CopyCheck

    @property
    def image_id(self) -> int | None:
        return self.ready.write.image_id


async def add_unless_same(
    gateway: Gateway, group: Sequence[CheckedWrite]
) -> list[Added | AmbienceError]:
    """Add those pictures of which there is no copy among the stored ones, also those that others
    add meanwhile, nor among those before them: in one transaction, in order, or all of them fail.

    Only if one of them can't be written, each is added by itself.
    """
    try:
        return await _added(gateway, group)
    except (InvalidInput, KeyLimited) as exc:
        if len(group) == 1:
            return [exc]
        return [added for one in group for added in await add_unless_same(gateway, [one])]
    except AmbienceError as exc:
        return [exc for _ in group]


async def _added(gateway: Gateway, group: Sequence[CheckedWrite]) -> list[Added | AmbienceError]:
    kinds = await feature_kinds(gateway)
    seen = await asyncio.to_thread(gateway.store.head)
    stored = await _searched(group, range(len(group)))
    while True:
        verdicts = await asyncio.to_thread(_verdicts, group, stored, kinds)
        taken = [number for number, verdict in enumerate(verdicts) if verdict is None]
        if not taken:
            return [_refusal(verdict, {}) for verdict in verdicts]
        head = await asyncio.to_thread(gateway.store.head)
        again: list[int] = []

        def check(rows: Mapping[int, bytes], of: list[int] = taken, to: list[int] = again) -> None:
            to += [number for number in of if group[number].check.suspect(rows) is not None]
            if to:
                raise CheckAgain("pictures that may be the same were added meanwhile")

        writes = [group[number].ready.write for number in taken]
        guard = Guard(group[0].check.space, seen, check)
        try:
            receipts = await asyncio.to_thread(gateway.store.put_if, writes, guard)
        except CheckAgain:
            # The others were compared with all that was added up to that head.
            seen = head
            stored |= await _searched(group, again)
            continue
        added = {
            number: Added(receipt, group[number].ready.retrievers)
            for number, receipt in zip(taken, receipts, strict=True)
        }
        return [added.get(at) or _refusal(verdict, added) for at, verdict in enumerate(verdicts)]


async def _searched(group: Sequence[CheckedWrite], numbers: Iterable[int]) -> dict[int, Stored]:
    """What is stored of these pictures, by number."""
    places = asyncio.Semaphore(cores())

    async def one(number: int) -> Stored:
        async with places:
            try:
                return (await group[number].check.find())[0]
            except AmbienceError as exc:
                return exc

    wanted = list(numbers)
    return dict(zip(wanted, await asyncio.gather(*map(one, wanted)), strict=True))


def _verdicts(
    group: Sequence[CheckedWrite], stored: Mapping[int, Stored], kinds: Mapping[str, FeatureKind]
) -> list[Verdict]:
    """What refuses each picture, as if they were added one after the other."""
    members, holders = Members(kinds), dict[int | None, int]()
    verdicts: list[Verdict] = []
    for number, one in enumerate(group):
        there = stored[number]
        replaced = holders.get(one.image_id)
        if isinstance(there, AmbienceError):
            verdicts.append(there)
            continue
        # What an earlier picture replaces is no copy any more.
        left = (copy for copy in there if copy.hit.image_id not in holders)
        verdict: Verdict = next(left, None)
        verdict = verdict or members.find(one.check, one.ready.write, replaced)
        if verdict is None:
            if replaced is not None:
                members.drop(replaced)
            members.take(number, one.ready.write)
            if one.image_id is not None:
                holders[one.image_id] = number
        verdicts.append(verdict)
    return verdicts


def _refusal(verdict: Verdict, added: Mapping[int, Added]) -> AmbienceError:
    """The error of a picture that was refused."""
    assert verdict is not None
    if isinstance(verdict, Copy):
        return duplicate(verdict.hit.image_id, verdict.relation)
    if isinstance(verdict, Member):
        return duplicate(added[verdict.number].receipt.image_id, verdict.relation)
    return verdict
