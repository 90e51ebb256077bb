"""The job finds what two pictures are to each other, once, and follows what changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from cluster.jobs.duplicates.following import DuplicateFinder
from indexes.duplicates.best import best_rule_write
from indexes.duplicates.catalogue import followed, groups_page, regroup_all_later
from indexes.duplicates.decisions import decide, undo
from indexes.store.base import Store
from indexes.store.lmdb.store import LmdbStore
from models.types import FileFacts
from tests.cluster.jobs.duplicates.library import add_file, finder
from tests.drawing import encoded, jpeg, scene


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = LmdbStore(tmp_path / "store")
    yield store
    store.close()


@pytest.fixture
def job(store: Store, threads: ThreadPoolExecutor) -> DuplicateFinder:
    return finder(store, threads)


def found(store: Store) -> set[tuple[str, frozenset[int]]]:
    """Return the levels and images of all groups."""
    groups = groups_page(store, None, "", 1000)[0]
    return {(one.group.level, frozenset(one.group.images)) for one in groups}


def with_comment(data: bytes) -> bytes:
    """Return the same JPEG with a comment."""
    return data[:2] + b"\xff\xfe\x00\x09comment" + data[2:]


def edited(image: Image.Image) -> Image.Image:
    changed = image.copy()
    ImageDraw.Draw(changed).rectangle((200, 150, 330, 260), fill="white", outline="black")
    return changed


def collage(seeds: list[int]) -> Image.Image:
    sheet = Image.new("RGB", (960, 720))
    for number, seed in enumerate(seeds):
        small = scene(seed).resize((480, 360), Image.Resampling.LANCZOS)
        sheet.paste(small, (480 * (number % 2), 360 * (number // 2)))
    return sheet


COPIES: dict[str, Callable[[Image.Image], bytes]] = {
    "bytes": encoded,
    "pixels": lambda image: with_comment(encoded(image)),
    "reencode": lambda image: encoded(image, quality=60),
    "resize": lambda image: encoded(image.resize((320, 240), Image.Resampling.LANCZOS)),
    "turned": lambda image: encoded(ImageOps.mirror(image)),
    "crop": lambda image: encoded(image.crop((90, 70, 560, 430))),
    "bordered": lambda image: encoded(ImageOps.expand(image, 60, "white")),
    "edited": lambda image: encoded(edited(image)),
}


@pytest.mark.parametrize("level", COPIES)
def test_what_a_copy_is_is_told(store: Store, job: DuplicateFinder, level: str) -> None:
    for seed in range(4):
        add_file(store, seed, jpeg(seed))
    add_file(store, 10, COPIES[level](scene(2)))
    outcome = job.run()
    assert found(store) == {(level, frozenset({2, 10}))}
    assert (outcome.images, outcome.new, dict(outcome.pairs)) == (5, 5, {level: 1})


@pytest.mark.parametrize("how", [Image.Resampling.BILINEAR, Image.Resampling.LANCZOS])
def test_a_picture_that_was_only_enlarged_does_not_stay_instead_of_its_original(
    store: Store, job: DuplicateFinder, how: Image.Resampling
) -> None:
    small = scene(3, 240, 180)
    add_file(store, 0, encoded(small, quality=85))
    add_file(store, 1, encoded(small.resize((960, 720), how), quality=95))
    add_file(store, 2, jpeg(4))
    add_file(store, 3, encoded(scene(4).resize((200, 150), Image.Resampling.LANCZOS)))
    job.run()
    groups = {one.group.images: one.group for one in groups_page(store, None, "", 10)[0]}
    assert groups.keys() == {(0, 1), (2, 3)}
    (pair,) = groups[0, 1].pairs
    assert pair.enlarged == 1
    assert groups[0, 1].reasons == {
        0: ["most pixels: 240×180, beside 960×720, only enlarged from 240×180"],
        1: ["fewer pixels: 960×720, only enlarged from 240×180"],
    }
    assert groups[2, 3].pairs[0].enlarged is None
    assert decide(store, "delete", [0, 1]).keep == (0,)


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("mirrored", [False, True])
def test_every_orientation_is_found(
    store: Store, job: DuplicateFinder, turns: int, mirrored: bool
) -> None:
    pixels = np.rot90(np.asarray(scene(5)), turns)
    add_file(store, 0, jpeg(5))
    add_file(store, 1, encoded(Image.fromarray(pixels[:, ::-1] if mirrored else pixels)))
    job.run()
    assert found(store) == {("turned", frozenset({0, 1}))}


def test_a_mirrored_part_is_found(store: Store, job: DuplicateFinder) -> None:
    for seed in range(4):
        add_file(store, seed, jpeg(seed))
    add_file(store, 10, encoded(ImageOps.mirror(scene(2).crop((90, 70, 420, 330)))))
    job.run()
    assert found(store) == {("crop", frozenset({2, 10}))}


def test_the_pictures_of_a_collage_are_its_parts(store: Store, job: DuplicateFinder) -> None:
    for seed in range(4):
        add_file(store, seed, jpeg(seed))
    add_file(store, 9, encoded(collage([0, 1, 2, 3])))
    job.run()
    pairs = {
        (pair.level, pair.a, pair.b)
        for one in groups_page(store, None, "", 100)[0]
        for pair in one.group.pairs
    }
    assert pairs == {("collage", seed, 9) for seed in range(4)}


def test_what_differs_is_told_in_pixels_of_both(store: Store, job: DuplicateFinder) -> None:
    add_file(store, 0, jpeg(2))
    add_file(store, 1, encoded(edited(scene(2)).resize((1280, 960), Image.Resampling.LANCZOS)))
    job.run()
    (one,) = groups_page(store, None, "", 10)[0]
    ((small, large),) = one.group.pairs[0].regions
    assert np.allclose(small, (200, 150, 131, 111), atol=24)
    assert np.allclose(large, np.multiply(small, 2), atol=12)
    assert one.group.images == (1, 0)


def test_a_burst_and_raw_beside_jpeg_are_told_by_dates_and_names(
    store: Store, job: DuplicateFinder
) -> None:
    def taken(seconds: float) -> FileFacts:
        return FileFacts("JPEG", 1000, 1e9 + seconds)

    wide = scene(1, 800, 600)
    add_file(store, 0, encoded(wide.crop((0, 0, 640, 480))), facts=taken(0))
    add_file(store, 1, encoded(wide.crop((60, 40, 700, 520))), facts=taken(2))
    add_file(store, 2, encoded(scene(7).crop((0, 0, 600, 450))), facts=taken(3))
    add_file(store, 3, jpeg(3), source="/a/IMG_1.jpg")
    add_file(
        store, 4, encoded(scene(3), quality=70), source="/a/img_1.CR2", facts=FileFacts("RAW", 9)
    )
    job.run()
    assert found(store) == {("burst", frozenset({0, 1})), ("raw", frozenset({3, 4}))}
    raw = next(one.group for one in groups_page(store, "raw", "", 9)[0])
    assert raw.images == (4, 3)


def test_different_pictures_make_no_group(store: Store, job: DuplicateFinder) -> None:
    for seed in range(12):
        add_file(store, seed, jpeg(seed))
    for seed in range(3):
        add_file(
            store, 20 + seed, encoded(Image.new("RGB", (300, 200), ("red", "blue", "gray")[seed]))
        )
    job.run()
    assert found(store) == set()


def test_plain_pictures_of_one_colour_are_one_group(store: Store, job: DuplicateFinder) -> None:
    for number, size in enumerate([(300, 200), (600, 400), (900, 600)]):
        add_file(store, number, encoded(Image.new("RGB", size, "teal")))
    job.run()
    assert found(store) == {("resize", frozenset({0, 1, 2}))}


def test_a_second_run_compares_nothing(store: Store, threads: ThreadPoolExecutor) -> None:
    for seed in (1, 1, 2):
        add_file(store, seed, jpeg(seed))
    add_file(store, 5, encoded(scene(1), quality=50))
    job = finder(store, threads)
    assert job.run().new == 3
    before = found(store)
    for again in (job, finder(store, threads)):
        outcome = again.run()
        assert (outcome.new, outcome.compared) == (0, 0)
        assert found(store) == before
    assert followed(store).pending == 0


def test_what_comes_and_goes_is_followed(store: Store, threads: ThreadPoolExecutor) -> None:
    job = finder(store, threads)
    add_file(store, 1, jpeg(1))
    job.run()
    add_file(store, 2, encoded(scene(1), quality=50))
    add_file(store, 3, jpeg(3))
    assert followed(store).pending == 2
    assert job.run().new == 2
    assert found(store) == {("reencode", frozenset({1, 2}))}
    add_file(store, 2, jpeg(3))
    assert job.run().new == 2  # Image 1 has lost its copy.
    assert found(store) == {("bytes", frozenset({2, 3}))}
    store.delete(3)
    assert job.run().new == 1
    assert found(store) == set()
    assert store.records("duplicates.again") == []
    add_file(store, 4, COPIES["crop"](scene(1)))
    assert finder(store, threads).run().new == 1
    assert found(store) == {("crop", frozenset({1, 4}))}


def test_what_only_a_deleted_image_connected_is_compared_again(
    store: Store, threads: ThreadPoolExecutor
) -> None:
    job = finder(store, threads)
    for at in range(30):
        add_file(store, at, jpeg(1))
    job.run()
    assert found(store) == {("bytes", frozenset(range(30)))}
    for at in (0, 7, 20):
        store.delete(at)
        job.run()
    left = frozenset(range(30)) - {0, 7, 20}
    assert found(store) == {("bytes", left)}
    decide(store, "delete", [1, 2, 3], [3])
    job.run()
    assert found(store) == {("bytes", left - {1, 2})}
    assert job.run().new == 0


def test_a_run_that_was_ended_goes_on(
    store: Store, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.jobs.duplicates.following.BLOCK", 3)
    for seed in range(6):
        add_file(store, seed, jpeg(seed % 4))
    add_file(store, 6, encoded(scene(2), quality=50))

    class Ended(Exception):
        pass

    def ends(done: int, _: int) -> None:
        if done:
            raise Ended

    first = finder(store, threads)
    first._note = ends
    with pytest.raises(Ended):
        first.run()
    outcome = finder(store, threads).run()
    assert outcome.new == 4
    assert found(store) == {
        ("bytes", frozenset({0, 4})),
        ("bytes", frozenset({1, 5})),
        ("reencode", frozenset({2, 6})),
    }


def test_decisions_survive_the_next_run(store: Store, threads: ThreadPoolExecutor) -> None:
    add_file(store, 1, jpeg(1))
    add_file(store, 2, encoded(scene(1), quality=50))
    finder(store, threads).run()
    decision = decide(store, "different", [1, 2])
    store.delete(2)
    add_file(store, 7, encoded(scene(1), quality=50))
    finder(store, threads).run()
    assert found(store) == set()
    undo(store, decision.decision_id)
    finder(store, threads).run()
    assert found(store) == {("reencode", frozenset({1, 7}))}


def test_an_undone_deletion_is_grouped_again(store: Store, threads: ThreadPoolExecutor) -> None:
    job = finder(store, threads)
    add_file(store, 1, jpeg(1))
    add_file(store, 2, encoded(scene(1), quality=50))
    job.run()
    decision = decide(store, "delete", [1, 2])
    job.run()
    undo(store, decision.decision_id)
    assert found(store) == {("reencode", frozenset({1, 2}))}
    job.run()
    assert found(store) == {("reencode", frozenset({1, 2}))}


def test_a_changed_rule_groups_all_anew(store: Store, threads: ThreadPoolExecutor) -> None:
    add_file(store, 1, jpeg(1), created=2.0)
    add_file(store, 2, COPIES["resize"](scene(1)), created=1.0)
    job = finder(store, threads)
    job.run()
    assert groups_page(store, None, "", 9)[0][0].group.images == (1, 2)
    store.write_records({**best_rule_write(["oldest"]), **regroup_all_later()})
    job.run()
    assert groups_page(store, None, "", 9)[0][0].group.images == (2, 1)
    assert followed(store).pending == 0
