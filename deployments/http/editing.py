"""The routes of /v1 that annotate uploads, and that let a person edit an image's annotations."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response

from deployments.http import openapi
from deployments.http.answers import JsonAnswer
from deployments.http.conditional import expected_version
from deployments.http.problems import documented
from deployments.http.reading import read_body, refuse_unknown_parameters, validated
from deployments.ingress.annotating import annotate
from deployments.ingress.gateway import Gateway, gateway_of
from deployments.ingress.listing.rows import facts_row
from deployments.ingress.report import begin_report
from deployments.schemas import AnnotationEdit, EditedImage, ImageEdit
from indexes.store.annotations import annotations_of
from indexes.store.base import ANNOTATE, Image
from models.errors import Conflict, ImageNotFound, InvalidInput, UnknownName
from models.types import MAX_IMAGE_ID

router = APIRouter(prefix="/v1", tags=["v1"], dependencies=[Depends(refuse_unknown_parameters)])


@router.patch(
    "/images/{image_id}",
    summary="Edit annotations and metadata of an image",
    response_model=EditedImage,
    responses=documented(400, 404, 409, 412, 413, 503),
    openapi_extra=openapi.EDIT,
)
async def edit_image(
    request: Request,
    image_id: Annotated[
        int, Path(ge=0, le=MAX_IMAGE_ID, description="The image's id, 0 ≤ id < 2^47.")
    ],
) -> Response:
    """Edit annotations and metadata as a person: annotators never change the result. Durable when
    answered."""
    gateway = gateway_of(request)
    edit = validated(ImageEdit, (await read_body(request)).fields)
    if not edit.annotations and not edit.metadata:
        raise InvalidInput("annotations: give annotations or metadata to change", "annotations")
    return JsonAnswer(await asyncio.to_thread(_edited, gateway, image_id, edit, request))


@router.post(
    "/annotate",
    summary="Caption, tags and text of a picture",
    response_model=dict[str, dict[str, Any]],
    responses={**openapi.answer(openapi.REPORT), **documented(400, 404, 413, 415, 503)},
    openapi_extra=openapi.ANNOTATE,
)
async def annotate_upload(request: Request) -> Response:
    """Annotations of an upload by each annotator that is ready; `X-Ambience-Missing` names the
    others."""
    gateway = gateway_of(request)
    body, report = await read_body(request), begin_report(request)
    names = _names(gateway, body.given("annotators").get("annotators"))
    said = await annotate(gateway, body.image(), names, report)
    return JsonAnswer(said, headers=report.headers())


def image_rows(gateway: Gateway, images: Sequence[Image]) -> list[dict[str, Any]]:
    """Images as /v1 shows them: with their annotations, and with what is still pending."""
    said = annotations_of(gateway.store, [image.image_id for image in images])
    return [_image_row(gateway, image, said.get(image.image_id, {})) for image in images]


def _image_row(gateway: Gateway, image: Image, annotations: dict[str, Any]) -> dict[str, Any]:
    retrievers: dict[str, Any] = {}
    said = dict(annotations)
    for kind in sorted(image.wanted):
        name = kind.removeprefix(ANNOTATE)
        if kind in image.pending:
            row = {"state": "pending", "reason": gateway.pending_reason(image, kind)}
            (retrievers if name == kind else said)[name] = row
        elif name == kind:
            retrievers[name] = {"state": "indexed"}
    return {
        "image_id": image.image_id,
        "generation": image.generation,
        "file_name": image.file_name,
        "source": image.source,
        "upload_name": image.upload_name,
        "width": image.width,
        "height": image.height,
        **facts_row(image.facts),
        "sha256": image.sha256,
        "created": image.created,
        "metadata": dict(image.metadata),
        "retrievers": retrievers,
        "annotations": said,
        "has_thumbnail": image.has_preview,
    }


def _edited(gateway: Gateway, image_id: int, edit: ImageEdit, request: Request) -> dict[str, Any]:
    if_version = expected_version(request, gateway.store, image_id)
    image = gateway.store.image(image_id)
    if image is None:
        raise ImageNotFound(f"no image {image_id}", "image_id")
    said = {name: _row(one) for name, one in edit.annotations.items()}
    seq = gateway.store.annotate(
        image_id, image.generation, said, "person", edit.metadata, if_version
    )
    edited = gateway.store.image(image_id)
    if seq is None or edited is None:
        raise Conflict(f"image {image_id} was replaced or deleted meanwhile", "image_id")
    return {"seq": seq, **image_rows(gateway, [edited])[0]}


def _row(said: AnnotationEdit | None) -> dict[str, Any] | None:
    return None if said is None else {name: value for name, value in said if value}


def _names(gateway: Gateway, given: Any) -> list[str] | None:
    """The requested annotators; None for all."""
    if given is None:
        return None
    if not isinstance(given, str):
        raise InvalidInput("annotators: names separated by commas", "annotators")
    names = [name.strip() for name in given.split(",") if name.strip()]
    there = gateway.directory.enabled("annotator")
    for name in names:
        if name not in there:
            known = ", ".join(there) or "none"
            raise UnknownName(f"annotators: no annotator {name!r}; there are {known}", "annotators")
    return names
