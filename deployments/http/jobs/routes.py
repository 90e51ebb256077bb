"""`GET /v1/jobs` and `POST /v1/jobs/{job_id}:cancel`."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, Field

from deployments import jobs
from deployments.http.answers import JsonAnswer
from deployments.http.problems import documented
from deployments.http.reading import refuse_unknown_parameters
from deployments.ingress.gateway import gateway_of
from deployments.schemas import Answer

router = APIRouter(prefix="/v1", tags=["v1"], dependencies=[Depends(refuse_unknown_parameters)])


class Job(Answer):
    """A batch job: a command such as `ambience backfill`."""

    job_id: str
    kind: str = Field(description="The command, such as `backfill`.")
    state: Literal["running", "finished", "failed", "cancelled"] = Field(
        description="`failed` also if its process has died."
    )
    began: float = Field(description="Seconds since the epoch.")
    seen: float = Field(description="When it last wrote its state, in seconds since the epoch.")
    ended: float | None = Field(None, description="Seconds since the epoch.")
    source: str | None = Field(None, description="What it works on.")
    host: str
    pid: int
    step: str | None = Field(None, description="What it does now.")
    done: int = Field(description="Pieces of work of this step that are done.")
    total: int | None = Field(None, description="Pieces of work of this step.")
    rate: float | None = Field(None, description="Pieces a second.")
    eta_seconds: float | None = Field(None, description="Seconds that the step still takes.")
    slowest: str | None = Field(None, description="The stage that the others wait for.")
    report: dict[str, Any] | None = Field(
        None, description="Its outcome; of a failed job, the `error`."
    )


class JobList(BaseModel):
    jobs: list[Job] = Field(description="Newest first.")


@router.get(
    "/jobs",
    summary="Batch jobs, running and ended",
    response_model=JobList,
    responses=documented(400, 503),
)
async def list_jobs(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=jobs.KEPT, description="At most this many jobs.")] = 100,
) -> Response:
    """Jobs of all machines that work on this store. States are at most a few seconds old."""
    found = await asyncio.to_thread(jobs.jobs, gateway_of(request).store, limit)
    return JsonAnswer({"jobs": [one.row() for one in found]})


@router.post(
    "/jobs/{job_id}:cancel",
    status_code=202,
    summary="Ask a job to end",
    response_model=Job,
    responses=documented(400, 404, 409, 503),
)
async def cancel_job(
    request: Request,
    job_id: Annotated[
        str, Path(min_length=1, max_length=100, description="An id of `GET /v1/jobs`.")
    ],
) -> Response:
    """It ends within seconds. What it has committed stays, and the same command resumes it."""
    found = await asyncio.to_thread(jobs.cancel, gateway_of(request).store, job_id)
    return JsonAnswer(found.row(), 202)
