"""Decoding for a service: threads, child processes, the pixel budget, and cheap extraction."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from models.errors import BrokenPicture
from models.pictures.decoder import Decoder
from models.pictures.decoding import DecodeLimits, Picture
from tests.models.pictures.test_colour import cmyk_profile


def encoded(name: str, width: int = 64, height: int = 48) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (250, 120, 10)).save(file, name)
    return file.getvalue()


@asynccontextmanager
async def decoder(**limits: Any) -> AsyncIterator[Decoder]:
    made = Decoder(DecodeLimits(**limits))
    try:
        yield made
    finally:
        made.close()


def in_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test())  # type: ignore[arg-type]

    run.__name__ = test.__name__
    return run


@in_loop
async def test_safe_formats_decode_in_threads_without_a_child() -> None:
    async with decoder() as it:
        for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM"):
            picture = await it.decode(encoded(name))
            assert isinstance(picture, Picture)
            assert picture.full.shape == (48, 64, 3)
        assert it.child_pids == []


@in_loop
async def test_fragile_formats_decode_in_a_child_that_closing_ends() -> None:
    async with decoder() as it:
        assert (await it.decode(encoded("TIFF"))).format == "TIFF"
        assert await it.decode(encoded("TIFF"), lambda picture: picture.width) == 64
        assert it.decode_blocking(encoded("TIFF")).format == "TIFF"
        (child,) = (psutil.Process(pid) for pid in it.child_pids)
    assert not child.is_running()


@in_loop
async def test_a_profile_of_tables_is_evaluated_in_a_child() -> None:
    file = io.BytesIO()
    Image.new("CMYK", (64, 48)).save(file, "JPEG", icc_profile=cmyk_profile())
    async with decoder() as it:
        assert await it.decode(file.getvalue(), lambda picture: picture.width) == 64
        assert len(it.child_pids) == 1


@in_loop
async def test_extraction_runs_in_the_thread_that_decoded() -> None:
    async with decoder() as it:
        name, mean = await it.decode(
            encoded("PNG"),
            lambda picture: (threading.current_thread().name, picture.full.mean(axis=(0, 1))),
        )
        assert name.startswith("decode")
        assert np.allclose(mean, (250, 120, 10))
        assert await it.run(lambda a, b: a + b, 2, b=3) == 5


@in_loop
async def test_errors_of_decoding_and_of_the_extraction_reach_the_caller() -> None:
    async with decoder() as it:
        with pytest.raises(BrokenPicture):
            await it.decode(encoded("PNG")[:60])
        with pytest.raises(ZeroDivisionError):
            await it.decode(encoded("PNG"), lambda _: 1 // 0)
        assert (await it.decode(encoded("PNG"))).width == 64


@in_loop
async def test_a_hanging_child_holds_up_no_safe_format() -> None:
    async with decoder(child_seconds=4) as it:
        await it.decode(encoded("TIFF"))
        psutil.Process(it.child_pids[0]).suspend()
        stuck = asyncio.create_task(it.decode(encoded("TIFF")))
        assert (await it.decode(encoded("PNG"))).width == 64
        assert not stuck.done()
        with pytest.raises(BrokenPicture, match="limit of 4 s"):
            await stuck
        assert (await it.decode(encoded("TIFF"))).width == 64


@in_loop
async def test_a_picture_beyond_the_budget_waits_for_room_and_holds_no_thread() -> None:
    async with decoder(threads=1, in_flight_pixels=64 * 48) as it:
        assert it._budget.try_acquire(1)
        waiting = asyncio.create_task(it.decode(encoded("PNG"), lambda picture: picture.width))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        assert await it.run(lambda: "free") == "free"
        it._budget.release(1)
        assert await waiting == 64


@in_loop
async def test_a_picture_larger_than_the_budget_gets_through_alone() -> None:
    async with decoder(in_flight_pixels=10) as it:
        pictures = await asyncio.gather(*(it.decode(encoded("PNG")) for _ in range(5)))
        assert [picture.width for picture in pictures] == [64] * 5
        assert it.decode_blocking(encoded("PNG")).width == 64
        assert it._budget.try_acquire(10)


@in_loop
async def test_cancelled_requests_give_their_pixels_back() -> None:
    async with decoder(threads=1, in_flight_pixels=64 * 48) as it:
        assert it._budget.try_acquire(64 * 48)
        waiting = [asyncio.create_task(it.decode(encoded("PNG"))) for _ in range(4)]
        await asyncio.sleep(0.1)
        waiting[0].cancel()
        waiting[1].cancel()
        it._budget.release(64 * 48)
        waiting[2].cancel()
        assert (await waiting[3]).width == 64
        for task in waiting[:3]:
            with pytest.raises(asyncio.CancelledError):
                await task
        await it.run(time.sleep, 0)
        assert it._budget.try_acquire(64 * 48)


@in_loop
async def test_many_at_once_all_get_their_own_picture() -> None:
    async with decoder(in_flight_pixels=20_000) as it:
        sizes = [(20 + n, 90 - n) for n in range(40)]
        widths = await asyncio.gather(
            *(it.decode(encoded("PNG", *size), lambda picture: picture.width) for size in sizes)
        )
        assert widths == [width for width, _ in sizes]


def test_batch_workers_decode_in_their_own_thread() -> None:
    it = Decoder()
    try:
        assert it.decode_blocking(encoded("JPEG")).full.shape == (48, 64, 3)
        with pytest.raises(BrokenPicture):
            it.decode_blocking(encoded("JPEG")[:100])
        assert it.child_pids == []
    finally:
        it.close()


@in_loop
async def test_short_jobs_run_side_by_side_while_another_thread_is_idle() -> None:
    async with decoder(threads=2) as it:
        meeting = threading.Barrier(2, timeout=10)

        def both(_: Picture) -> list[int]:
            return it.run_all([meeting.wait, meeting.wait])

        assert sorted(await it.decode(encoded("PNG"), both)) == [0, 1]


@in_loop
async def test_short_jobs_run_one_after_the_other_when_every_thread_is_busy() -> None:
    async with decoder(threads=1) as it:
        jobs = [threading.get_ident] * 3
        threads = await it.decode(encoded("PNG"), lambda _: it.run_all(jobs))
        assert len(threads) == 3
        assert len(set(threads)) == 1


@in_loop
async def test_an_error_of_a_short_job_reaches_the_caller() -> None:
    async with decoder(threads=2) as it:
        with pytest.raises(ZeroDivisionError):
            await it.decode(encoded("PNG"), lambda _: it.run_all([int, lambda: 1 // 0]))
