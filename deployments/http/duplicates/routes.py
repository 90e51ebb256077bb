"""`/v1/duplicates`: groups to review, decisions with their history, and rules."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from deployments.http import openapi
from deployments.http.answers import JsonAnswer
from deployments.http.duplicates.bodies import (
    BestEdit,
    DecisionAnswer,
    DecisionList,
    DecisionRequest,
    DuplicateList,
    LevelRule,
    RuleEdit,
    RuleList,
)
from deployments.http.problems import documented
from deployments.http.reading import read_body, refuse_unknown_parameters, validated
from deployments.ingress.gateway import gateway_of
from deployments.ingress.listing.cursors import after_key, key_before
from deployments.ingress.listing.rows import facts_row, iso_time
from indexes.duplicates import best, decisions, rules
from indexes.duplicates.catalogue import (
    StoredGroup,
    counts,
    followed,
    groups_page,
    regroup_all_later,
)
from indexes.duplicates.facts import Facts, facts_of
from indexes.duplicates.levels import MEANINGS, Level
from indexes.store.base import Store

router = APIRouter(
    prefix="/v1/duplicates", tags=["v1"], dependencies=[Depends(refuse_unknown_parameters)]
)
Cursor = Annotated[
    str | None, Query(max_length=100, description="`next_cursor` of the previous page.")
]
GROUPS, DECISIONS = "groups", "decisions"
"""Names of the lists in their cursors."""
SHOWN_FACTS = ("bytes", "format", "taken")


@router.get(
    "",
    summary="Groups of duplicates",
    response_model=DuplicateList,
    responses=documented(400, 503),
)
async def list_duplicates(
    request: Request,
    level: Annotated[Level | None, Query(description="Only groups of this level.")] = None,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Groups a page.")] = 20,
) -> Response:
    """As `ambience duplicates` has found them; run it again, or with `--follow`, for what is new.

    An image may be in a group of several levels, but beside each better one only once."""
    store = gateway_of(request).store
    after = key_before(GROUPS, cursor)
    return JsonAnswer(await asyncio.to_thread(_duplicates, store, level, after, limit))


@router.post(
    "/decisions",
    summary="Decide on duplicates",
    response_model=DecisionAnswer,
    responses=documented(400, 404, 409, 503),
    openapi_extra=openapi.json_of(DecisionRequest),
)
async def decide_duplicates(request: Request) -> Response:
    """Durable when answered. It holds for the contents, whatever their ids are later.

    Before a deletion, tags and a person's annotations go to the first image that stays; what is
    deleted can come back for 30 days."""
    body = await read_body(request)
    wanted = validated(DecisionRequest, body.fields)
    store = gateway_of(request).store
    made = await asyncio.to_thread(
        decisions.decide, store, wanted.decision, wanted.image_ids, wanted.keep
    )
    return JsonAnswer(_decision(made))


@router.get(
    "/decisions",
    summary="The history of decisions",
    response_model=DecisionList,
    responses=documented(400, 503),
)
async def list_decisions(
    request: Request,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Decisions a page.")] = 100,
    decision: Annotated[
        decisions.What | None,
        Query(description="Only decisions of this kind; `alternates` are the stacks."),
    ] = None,
) -> Response:
    """The newest first, also those that were undone."""
    store = gateway_of(request).store
    after = key_before(DECISIONS, cursor)
    page, last = await asyncio.to_thread(decisions.history, store, after, limit, decision)
    return JsonAnswer(
        {"decisions": [_decision(one) for one in page], "next_cursor": after_key(DECISIONS, last)}
    )


@router.delete(
    "/decisions/{decision_id}",
    summary="Undo a decision",
    response_model=DecisionAnswer,
    responses=documented(400, 404, 409, 503),
)
async def undo_decision(
    request: Request,
    decision_id: Annotated[
        str, Path(max_length=100, description="A `decision_id` of the history.")
    ],
) -> Response:
    """The group is shown again. What was deleted is back with its features, preview, metadata and
    annotations, under its id unless that holds another picture now."""
    store = gateway_of(request).store
    return JsonAnswer(_decision(await asyncio.to_thread(decisions.undo, store, decision_id)))


@router.get(
    "/rules",
    summary="Which picture is the best, and which levels are automatic",
    response_model=RuleList,
    responses=documented(503),
)
async def list_rules(request: Request) -> Response:
    """The order of criteria, and the rule of each level."""
    return JsonAnswer(await asyncio.to_thread(_rules, gateway_of(request).store))


@router.put(
    "/rules/best",
    summary="Say which picture is the best",
    response_model=RuleList,
    responses=documented(400, 503),
    openapi_extra=openapi.json_of(BestEdit),
)
async def edit_best(request: Request) -> Response:
    """The next run of `ambience duplicates` groups all images by it; `pending` counts them until
    then."""
    body = await read_body(request)
    wanted = validated(BestEdit, body.fields)
    store = gateway_of(request).store
    writes = {**best.best_rule_write(wanted.order), **regroup_all_later()}
    await asyncio.to_thread(store.write_records, writes)
    return JsonAnswer(await asyncio.to_thread(_rules, store))


@router.put(
    "/rules/{level}",
    summary="Make a level automatic or manual",
    response_model=LevelRule,
    responses=documented(400, 409, 503),
    openapi_extra=openapi.json_of(RuleEdit),
)
async def edit_rule(
    request: Request, level: Annotated[Level, Path(description="A level of the groups.")]
) -> Response:
    """A level can become automatic after enough approvals without a denial. A denial makes it
    manual again: a group that is kept, another picture than the best that is kept, or an undo."""
    body = await read_body(request)
    wanted = validated(RuleEdit, body.fields)
    store = gateway_of(request).store
    rule = await asyncio.to_thread(rules.set_rule, store, level, wanted.automatic, wanted.needed)
    return JsonAnswer(_rule(rule))


def _duplicates(store: Store, level: Level | None, after: str, limit: int) -> dict[str, Any]:
    page, last = groups_page(store, level, after, limit)
    ids = sorted({at for one in page for at in one.group.images})
    facts = facts_of(store, store.images_by_id(ids).values())
    groups = (_group(one, facts) for one in page)
    state = followed(store)
    return {
        "levels": [{"level": at, **one._asdict()} for at, one in counts(store).items()],
        # Of a group of which one is left, the job has not noticed yet.
        "groups": [one for one in groups if len(one["images"]) > 1],
        "next_cursor": after_key(GROUPS, last),
        "head": state.head,
        "pending": state.pending,
    }


def _group(found: StoredGroup, facts: dict[int, Facts]) -> dict[str, Any]:
    group, reasons = found.group, found.group.reasons or {}
    contents = {
        at: content
        for pair in group.pairs
        for at, content in zip((pair.a, pair.b), pair.contents, strict=True)
    }
    there = {
        at
        for at in group.images
        if at in facts and contents.get(at, facts[at].image.sha256) == facts[at].image.sha256
    }
    images = [
        _image(facts[at], at == group.images[0], reasons.get(at, ()))
        for at in group.images
        if at in there
    ]
    return {
        "group_id": found.group_id,
        "level": group.level,
        "bytes": group.size,
        "images": images,
        "pairs": [pair.row() for pair in group.pairs if {pair.a, pair.b} <= there],
    }


def _image(facts: Facts, is_best: bool, reasons: Any) -> dict[str, Any]:
    image = facts.image
    known = facts_row(image.facts)
    return {
        "image_id": image.image_id,
        "width": image.width,
        "height": image.height,
        **{name: known[name] for name in SHOWN_FACTS if name in known},
        "created": iso_time(image.created),
        "sha256": image.sha256,
        "file_name": image.file_name,
        **({"upload_name": image.upload_name} if image.upload_name else {}),
        "has_thumbnail": image.has_preview,
        "tags": list(facts.tags),
        "best": is_best,
        "reasons": list(reasons),
    }


def _decision(one: decisions.Decision) -> dict[str, Any]:
    row = asdict(one)
    for name in ("contents", "merged", "approves"):
        del row[name]
    if not one.restored:
        del row["restored"]
    if one.level is None:
        del row["level"]
    return row


def _rules(store: Store) -> dict[str, Any]:
    return {
        "best": list(best.read_best_rule(store).criteria),
        "criteria": dict(best.MEANINGS),
        "levels": [_rule(one) for one in rules.read_rules(store)],
    }


def _rule(rule: rules.Rule) -> dict[str, Any]:
    return {**asdict(rule), "meaning": MEANINGS[rule.level]}
