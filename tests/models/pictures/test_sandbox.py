"""The child process for fragile formats: crashes, hangs and the end of the parent, all real."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread, Timer

import numpy as np
import pillow_heif
import psutil
import pytest
from PIL import Image

from models.errors import BrokenPicture, PictureTooLarge, Unavailable, UnsupportedPicture
from models.pictures.decoding import DecodeLimits, decode
from models.pictures.pixel_budget import PixelBudget
from models.pictures.sandbox import Sandbox

pillow_heif.register_heif_opener()
ROOT = Path(__file__).parents[3]


def tiff(width: int = 40, height: int = 30, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (10, 20, 30)).save(file, "TIFF", **options)
    return file.getvalue()


@pytest.fixture
def budget() -> PixelBudget:
    return PixelBudget(10**9)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox(DecodeLimits(child_seconds=4, max_pixels=2_000_000, max_bytes=10**7))
    yield sandbox
    sandbox.close()


def running(sandbox: Sandbox, budget: PixelBudget) -> psutil.Process:
    sandbox.decode(tiff(), budget)
    assert sandbox.pid is not None
    return psutil.Process(sandbox.pid)


def test_the_child_gives_the_same_picture(sandbox: Sandbox, budget: PixelBudget) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 200, 3), dtype=np.uint8)
    for name in ("TIFF", "AVIF", "HEIF"):
        file = io.BytesIO()
        Image.fromarray(noise).save(file, name)
        apart, here = sandbox.decode(file.getvalue(), budget), decode(file.getvalue())
        assert np.array_equal(apart.full, here.full)
        assert (apart.width, apart.height, apart.format) == (200, 300, name)
        assert not apart.full.flags.writeable


def test_the_child_says_what_is_cut_short(sandbox: Sandbox, budget: PixelBudget) -> None:
    assert sandbox.decode(tiff()[:-300], budget).truncated
    assert not sandbox.decode(tiff(), budget).truncated


def test_one_child_serves_many_pictures(sandbox: Sandbox, budget: PixelBudget) -> None:
    child = running(sandbox, budget)
    assert running(sandbox, budget) == child


def test_errors_of_the_child_are_typed_and_leave_it_alive(
    sandbox: Sandbox, budget: PixelBudget
) -> None:
    child = running(sandbox, budget)
    with pytest.raises(BrokenPicture, match="TIFF"):
        sandbox.decode(tiff()[:100], budget)
    with pytest.raises(PictureTooLarge, match="2,000,000 pixels"):
        sandbox.decode(tiff(2000, 1001, compression="tiff_lzw"), budget)
    with pytest.raises(UnsupportedPicture, match="HEIC"):
        sandbox.decode(b"no picture", budget)
    with pytest.raises(PictureTooLarge, match="10,000,000"):
        sandbox.decode(tiff() + bytes(10**7), budget)
    with pytest.raises(BrokenPicture, match="empty"):
        sandbox.decode(b"", budget)
    assert running(sandbox, budget) == child


def test_a_crash_fails_one_request_and_a_fresh_child_starts(
    sandbox: Sandbox, budget: PixelBudget
) -> None:
    child = running(sandbox, budget)
    child.suspend()
    Timer(0.2, child.send_signal, [signal.SIGSEGV]).start()
    Timer(0.3, child.resume).start()
    with pytest.raises(BrokenPicture, match=r"crashed on this picture \(signal 11\)") as caught:
        sandbox.decode(tiff(), budget)
    assert caught.value.field == "image"
    assert running(sandbox, budget) != child


def test_a_hanging_child_is_killed_at_its_deadline(sandbox: Sandbox, budget: PixelBudget) -> None:
    child = running(sandbox, budget)
    child.suspend()
    start = time.monotonic()
    # These are more bytes than the socket buffer holds: sending must not wait for ever either.
    with pytest.raises(BrokenPicture, match="longer than the limit of 4 s"):
        sandbox.decode(tiff(1500, 1000), budget)
    assert 3.9 < time.monotonic() - start < 30
    assert not child.is_running()
    assert running(sandbox, budget) != child


def test_a_crash_gives_its_pixels_back(sandbox: Sandbox) -> None:
    budget = PixelBudget(1200)
    child = running(sandbox, budget)
    assert budget.try_acquire(1200)

    def crash() -> None:
        while not budget._queue:
            time.sleep(0.01)
        child.kill()
        while child.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        budget.release(1200)

    Thread(target=crash).start()
    with pytest.raises(BrokenPicture, match="signal 9"):
        sandbox.decode(tiff(), budget)
    assert budget.try_acquire(1200)


def test_a_child_that_died_while_idle_is_replaced(sandbox: Sandbox, budget: PixelBudget) -> None:
    child = running(sandbox, budget)
    child.kill()
    while child.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert running(sandbox, budget) != child


def test_closing_ends_the_child(budget: PixelBudget) -> None:
    sandbox = Sandbox(DecodeLimits())
    child = running(sandbox, budget)
    sandbox.close()
    assert not child.is_running()
    assert sandbox.pid is None


def test_a_picture_that_needs_too_much_memory_is_refused(budget: PixelBudget) -> None:
    sandbox = Sandbox(DecodeLimits(child_bytes=1 << 28))
    try:
        with pytest.raises(BrokenPicture):
            sandbox.decode(tiff(8000, 8000, compression="tiff_deflate"), budget)
        assert sandbox.decode(tiff(), budget).width == 40
    finally:
        sandbox.close()


def test_a_child_that_cant_start_is_unavailability_not_a_broken_picture(
    budget: PixelBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(Unavailable, match="exit status 1"):
        Sandbox(DecodeLimits()).decode(tiff(), budget)


def test_the_child_ends_by_itself_when_the_parent_is_killed() -> None:
    script = (
        "import sys, time\n"
        "from models.pictures.sandbox import Sandbox\n"
        "from models.pictures.decoding import DecodeLimits\n"
        "from models.pictures.pixel_budget import PixelBudget\n"
        "sandbox = Sandbox(DecodeLimits())\n"
        "sandbox.decode(sys.stdin.buffer.read(), PixelBudget(10**9))\n"
        "print(sandbox.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    with parent:
        parent.stdin.write(tiff())
        parent.stdin.close()
        child = psutil.Process(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running()
