"""`POST /v1/thumbnail`: the thumbnail of an upload."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from deployments.http import openapi
from deployments.http.problems import documented
from deployments.http.reading import read_body, refuse_unknown_parameters
from deployments.ingress.gateway import gateway_of
from deployments.ingress.report import begin_report
from models.pictures.decoding import Picture

router = APIRouter(prefix="/v1", tags=["v1"], dependencies=[Depends(refuse_unknown_parameters)])
SIZE = {"X-Ambience-Size": openapi.header("Width and height of the upright picture: `4032x3024`.")}


@router.post(
    "/thumbnail",
    summary="Thumbnail of an uploaded picture, as JPEG",
    response_class=Response,
    responses={
        **openapi.answer(openapi.REPORT | SIZE, {"image/jpeg": openapi.IMAGE}),
        **documented(400, 413, 415, 503),
    },
    openapi_extra=openapi.PICTURE,
)
async def thumbnail_of_upload(request: Request) -> Response:
    """As the thumbnail of an image that is added: upright, in sRGB, without transparency. Nothing
    is stored. It is for browsers that can't show a format, such as HEIC."""
    data = (await read_body(request)).image()
    gateway = gateway_of(request)
    report = begin_report(request)

    def prepared(picture: Picture) -> tuple[bytes, str, bool]:
        return picture.preview_jpeg(), f"{picture.width}x{picture.height}", picture.truncated

    with report.timed("decode"):
        jpeg, size, report.truncated = await gateway.decoder.decode(data, then=prepared)
    headers = {**report.headers(), "X-Ambience-Size": size}
    return Response(jpeg, media_type="image/jpeg", headers=headers)
