"""Liveness and readiness."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from deployments.http.problems import ProblemResponse, documented, problem
from deployments.ingress.gateway import gateway_of
from models.errors import Unavailable

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Alive")
async def healthz() -> dict[str, str]:
    """Answers while the process is alive."""
    return {"status": "alive"}


@router.get("/readyz", summary="Ready", responses=documented(503), response_model=None)
async def readyz(request: Request) -> JSONResponse | ProblemResponse:
    """Answers 200 when the store answers and the required retrievers are ready."""
    gateway = gateway_of(request)
    reasons = await gateway.unready()
    if not reasons:
        return JSONResponse({"status": "ready"})
    return problem(Unavailable("; ".join(f"{what}: {why}" for what, why in reasons.items())))
