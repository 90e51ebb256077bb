"""Pairs of pictures, as the relation sees them: decoded from JPEGs, as previews."""

from __future__ import annotations

from PIL import Image, ImageDraw

from indexes.relation.judging import Relation, relate
from indexes.relation.side import Side
from models.pictures.decoding import decode
from tests.drawing import encoded


def side(image: Image.Image, quality: int = 85) -> Side:
    return Side.of(decode(encoded(image, quality=quality)).preview)


def relation(query: Image.Image, image: Image.Image, quality: int = 85) -> Relation:
    """Return the relation of two pictures, whole on whole."""
    return relate(side(query, quality), side(image), [], whole=True)


def form(rows: list[str]) -> Image.Image:
    """Draw a form that is filled in with these rows."""
    image = Image.new("RGB", (600, 700), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((30, 30, 570, 80), fill="navy")
    for number, text in enumerate(rows):
        top = 120 + 56 * number
        draw.line((30, top + 44, 570, top + 44), fill="gray")
        draw.text((40, top + 4), text, fill="black", font_size=26)
    return image
