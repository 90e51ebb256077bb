from __future__ import annotations

import io

from PIL import Image

from indexes.base import Hit, Support
from indexes.relation.judging import Relation
from indexes.relation.proposals import (
    MAX_COMPARED,
    MISSES,
    Proposals,
    QuerySide,
    better,
    relations,
    stored_sides,
)
from indexes.store.base import Preview
from models.pictures.decoding import Picture, decode
from tests.drawing import encoded, scene

SHIFT = [[1.0, 0.0, 3.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]


def preview(picture: Picture) -> Preview:
    return Preview(picture.width, picture.height, picture.preview_jpeg())


def proposed(*hits: Hit) -> Proposals:
    proposals = Proposals()
    proposals.add(hits)
    return proposals


def test_a_hash_proposes_and_the_previews_decide() -> None:
    query = QuerySide.of(decode(encoded(scene(1), quality=40)))
    previews = {at: preview(decode(encoded(scene(at)))) for at in (1, 2)}
    found = relations(query, proposed(Hit(1, distance=4), Hit(2, distance=40)), previews)
    assert found[1].kind == "same"
    assert not found[2].is_verified


def test_a_homography_of_the_grey_views_is_brought_to_the_previews() -> None:
    picture = scene(3, 1200, 900)
    crop = decode(encoded(picture.crop((200, 100, 800, 550))))
    stored = decode(encoded(picture))
    scale = stored.gray.shape[1] / 1200
    homography = [[scale, 0.0, 200 * scale], [0.0, scale, 100 * scale], [0.0, 0.0, 1.0]]
    hit = Hit(7, inliers=8, homography=homography)
    found = relations(QuerySide.of(crop), proposed(hit), {7: preview(stored)})[7]
    assert found.kind == "part"
    assert found.overlap is not None
    assert found.overlap[0] > 0.95


def test_regions_are_in_pixels_of_the_originals() -> None:
    picture = scene(4, 1600, 1200)
    edited = picture.copy()
    edited.paste(scene(5, 300, 300), (1000, 800))
    found = relations(
        QuerySide.of(decode(encoded(edited))),
        proposed(Hit(1, distance=10)),
        {1: preview(decode(encoded(picture)))},
    )[1]
    assert found.kind == "edited"
    left, top, width, height = found.regions[0][1]
    assert 950 < left + width / 2 < 1350
    assert 750 < top + height / 2 < 1150


def test_without_previews_near_hashes_and_keypoints_all_over_the_overlap_count() -> None:
    query = QuerySide.of(decode(encoded(scene(1))))
    all_over, corner = Support(40.0, 0.5, 0.6, 0.0), Support(8.0, 0.1, 0.1, 0.0)
    common = Support(1.5, 0.5, 0.6, 0.0)
    hits = (
        Hit(1, distance=4),
        Hit(2, distance=50),
        Hit(3, inliers=60, homography=SHIFT, support=all_over),
        Hit(4, inliers=8, homography=SHIFT, support=corner),
        Hit(5, inliers=30, homography=SHIFT, support=common),
    )
    kinds = {at: one.kind for at, one in relations(query, proposed(*hits), {}).items()}
    assert kinds == {1: "same", 2: "like", 3: "part", 4: "shares", 5: "shares"}


def test_photographs_of_one_scene_from_two_places_are_parts_of_it() -> None:
    query = QuerySide.of(decode(encoded(scene(1))))
    stored = {at: preview(decode(encoded(scene(2)))) for at in (1, 2)}
    bent, rigid = Support(18.0, 0.2, 0.3, 0.1), Support(18.0, 0.2, 0.3, 0.002)
    found = relations(
        query,
        proposed(
            Hit(1, inliers=20, homography=SHIFT, support=bent),
            Hit(2, inliers=20, homography=SHIFT, support=rigid),
        ),
        stored,
    )
    assert found[1].kind == "part"
    assert found[1].confidence > 0.5
    assert not found[2].is_verified


def test_after_a_few_strangers_only_likely_images_are_compared() -> None:
    query = QuerySide.of(decode(encoded(scene(1))))
    stranger = preview(decode(encoded(scene(2))))
    weak = [Hit(at, distance=40) for at in range(MISSES)]
    later = [Hit(100, distance=50), Hit(101, distance=20)]
    copy = preview(decode(encoded(scene(1), quality=50)))
    previews = {hit.image_id: stranger for hit in weak} | {100: copy, 101: copy}
    found = relations(query, proposed(*weak, later[0]), previews)
    assert not found[100].is_verified
    found = relations(query, proposed(*weak, later[1]), previews)
    assert found[101].kind == "same"


def test_the_likeliest_images_are_compared_first() -> None:
    far = [Hit(at, distance=60) for at in range(100)]
    proposals = proposed(*far, Hit(500, distance=3), Hit(501, distance=20))
    order = proposals.compared()
    assert order[:2] == [500, 501]
    assert len(order) == MAX_COMPARED


def test_a_broken_preview_relates_to_nothing() -> None:
    query = QuerySide.of(decode(encoded(scene(1))))
    found = relations(query, proposed(Hit(1, distance=0)), {1: Preview(640, 480, b"no JPEG")})
    assert found[1].kind == "like"


def test_a_stored_image_is_a_query_by_its_preview() -> None:
    file = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(file, "JPEG")
    (side,) = stored_sides(Preview(60, 40, file.getvalue()))
    assert (side.factor, side.long_side, side.smooth) == (1, 60, True)
    assert stored_sides(Preview(60, 40, b"no JPEG")) == []


def test_the_better_of_two_relations_verifies_more() -> None:
    same, shares = Relation("same", 0.9), Relation("shares", 0.3)
    assert better(None, shares) is shares
    assert better(shares, same) is same
    assert better(same, shares) is same
