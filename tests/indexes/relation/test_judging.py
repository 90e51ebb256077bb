from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from indexes.relation.judging import relate
from tests.drawing import scene
from tests.indexes.relation.pairs import form, relation, side

PICTURE = scene(1)
ROWS = ["rgmtpa 3917", "wovel kuzh 20", "abbot 7.55", "quixy lendu", "tiv 88120", "osmund"]
OTHER_ROWS = ["ehxw 5540", "pindar 6", "zzubo trel 91", "kim 3", "fallow deg", "yrt 777 ab"]
CHANGES = {
    "re-encoded": PICTURE,
    "smaller": PICTURE.resize((320, 240)),
    "brighter": ImageEnhance.Brightness(PICTURE).enhance(1.3),
    "grey": PICTURE.convert("L").convert("RGB"),
    "blurred": PICTURE.filter(ImageFilter.GaussianBlur(1.2)),
    "stretched": PICTURE.resize((900, 480)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_file_of_one_picture_is_the_same(name: str) -> None:
    found = relation(CHANGES[name], PICTURE, quality=40)
    assert (found.kind, found.changes, found.regions) == ("same", (), ())
    assert found.confidence > 0.95
    assert found.overlap == pytest.approx((1, 1), abs=0.03)


@pytest.mark.parametrize("width", [398, 402, 404, 406, 408, 412])
def test_pictures_just_above_the_compared_size_are_the_same(width: int) -> None:
    # Fine grain, of which a shift by a pixel leaves nothing.
    random = np.random.default_rng(3)
    grain = Image.fromarray(random.integers(0, 256, (304, 408, 3), np.uint8))
    fine = Image.blend(scene(5, 408, 304), grain.filter(ImageFilter.GaussianBlur(1)), 0.7)
    found = relation(fine.resize((width, width * 304 // 408), Image.Resampling.LANCZOS), fine)
    assert found.kind == "same"
    assert found.evidence is not None
    assert found.evidence.inside > 0.97


def test_the_relation_says_what_happened_to_the_whole_picture() -> None:
    assert relation(ImageOps.mirror(PICTURE), PICTURE).changes == ("mirrored",)
    assert relation(PICTURE.rotate(90, expand=True), PICTURE).changes == ("turned",)
    assert relation(ImageOps.invert(PICTURE), PICTURE).changes == ("negative",)
    framed = ImageOps.expand(PICTURE, (80, 60), "black")
    found = relation(framed, PICTURE)
    assert (found.kind, found.changes) == ("same", ("bordered",))
    assert found.words == "same, bordered"


def test_another_picture_is_not_related() -> None:
    found = relation(scene(2), PICTURE)
    assert not found.is_verified
    assert found.confidence < 0.5


def test_an_edit_is_told_with_its_region_in_both_pictures() -> None:
    edited = PICTURE.copy()
    ImageDraw.Draw(edited).rectangle((400, 300, 520, 420), fill="white", outline="red", width=6)
    found = relation(edited, PICTURE)
    assert found.kind == "edited"
    assert found.is_verified
    scale = 512 / 640
    for box in found.regions[0]:
        left, top, width, height = (edge / scale for edge in box)
        assert 360 < left + width / 2 < 560
        assert 260 < top + height / 2 < 460


def test_a_crop_is_a_part() -> None:
    crop = PICTURE.crop((100, 80, 420, 320))
    # Pixels of the crop's preview, which is as large as the crop, to those of the picture's.
    matrix = [[0.8, 0, 80], [0, 0.8, 64], [0, 0, 1]]
    import numpy as np

    found = relate(side(crop), side(PICTURE), [np.array(matrix)], whole=False)
    assert found.kind == "part"
    assert found.overlap == pytest.approx((1, 0.25), abs=0.03)


def test_the_same_form_with_other_entries_only_shares_it() -> None:
    assert relation(form(ROWS), form(ROWS), quality=60).kind == "same"
    assert relation(form(ROWS), form(OTHER_ROWS)).kind in ("shares", "like")


def test_the_same_frame_around_another_picture_is_only_shared() -> None:
    pages = []
    for seed in (3, 4):
        page = Image.new("RGB", (900, 700), "white")
        draw = ImageDraw.Draw(page)
        for line in range(6):
            draw.text((680, 60 + 50 * line), f"Menu entry {line}", fill="black", font_size=28)
        draw.rectangle((0, 0, 900, 40), fill="purple")
        page.paste(scene(seed), (20, 120))
        pages.append(page)
    assert not relation(*pages).is_verified
    assert relation(pages[0], pages[0], quality=50).kind == "same"


def test_pictures_of_one_colour_are_the_same_only_in_that_colour() -> None:
    red, size = Image.new("RGB", (300, 300), (200, 30, 40)), (400, 250)
    assert relation(red, Image.new("RGB", size, (200, 30, 40))).kind == "same"
    assert relation(red, Image.new("RGB", size, (30, 200, 40))).kind == "like"
    assert relation(red, PICTURE).kind == "like"


def test_gradients_are_the_same_only_in_their_colours_and_direction() -> None:
    ramp = Image.linear_gradient("L").convert("RGB").resize((400, 300))
    assert relation(ramp, ramp, quality=60).kind == "same"
    assert relation(ramp.rotate(180), ramp).changes == ("turned",)
    assert (
        relation(ImageOps.invert(ramp), ImageEnhance.Brightness(ramp).enhance(0.5)).kind == "like"
    )


def test_a_tiny_icon_is_recognised() -> None:
    icon = scene(5).resize((45, 45), Image.Resampling.LANCZOS)
    assert relation(icon, icon, quality=80).kind == "same"
    assert not relation(icon, scene(6).resize((45, 45), Image.Resampling.LANCZOS)).is_verified


def test_a_quiet_part_of_a_picture_is_a_part_of_it_where_keypoints_align_it() -> None:
    random = np.random.default_rng(5)
    sky = Image.fromarray(random.integers(108, 132, (24, 32), np.uint8)).resize((640, 480))
    picture = Image.merge("RGB", [sky] * 3)
    picture.paste(scene(8, 640, 240), (0, 240))
    query, image = side(picture.crop((0, 0, 320, 224)), 90), side(picture, 90)
    assert query.is_smooth
    assert not image.is_smooth
    scale = image.shape[1] / 640
    aligned = np.diag([scale, scale, 1.0])
    assert relate(query, image, [aligned], whole=False).kind == "part"
    aside = np.array([[scale, 0, 320 * scale], [0, scale, 0], [0, 0, 1]])
    assert not relate(query, image, [aside], whole=False).is_verified
    assert not relate(query, image, [], whole=True).is_verified


def pasted(picture: Image.Image) -> Image.Image:
    """Paste a disc over some of a drawing's content."""
    covered = picture.copy()
    ImageDraw.Draw(covered).ellipse((240, 120, 380, 260), fill="orange", outline="black", width=3)
    return covered


def test_a_drawing_with_something_pasted_over_it_is_an_edit_and_another_one_is_not() -> None:
    blocks = Image.new("RGB", (600, 700), "white")
    draw = ImageDraw.Draw(blocks)
    for number in range(9):
        left, top = 40 + 190 * (number % 3), 40 + 220 * (number // 3)
        draw.rectangle((left, top, left + 130, top + 170), fill="teal", outline="black")
        draw.polygon([(left, top), (left + 130, top + 20 * number), (left + 50, top + 170)], "red")
    for drawing in (blocks, form(ROWS)):
        found = relation(pasted(drawing), drawing)
        assert found.evidence is not None
        assert found.evidence.plain > 0.9
        assert found.kind == "edited"
    assert not relation(pasted(form(OTHER_ROWS)), form(ROWS)).is_verified
