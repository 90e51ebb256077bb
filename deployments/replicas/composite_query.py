"""Query arithmetic: pictures, stored images and texts become one vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deployments.wire import CompositeQuery
from indexes.base import Rows
from models.base import Extractor
from models.errors import ImageNotFound, InvalidInput
from models.types import Features

SHORTEST = 1e-3
"""Minimum length of a sum; the direction of a shorter one is only rounding error."""


def composite_features(
    extractor: Extractor, rows: Rows, composite: CompositeQuery, pictures: Sequence[Features] = ()
) -> Features:
    """Features of a composite query; `pictures` are the features of its pixels.

    For an additive extractor, whose features have unit length: the sum of the positive parts minus
    `negative_weight` times the sum of the negative ones, renormalised, float32 (d,). Negative ids
    without features are ignored. Raises ImageNotFound for any other id without features, and
    InvalidInput for an unreadable text or parts that cancel each other out.
    """
    if not extractor.additive:
        if composite.text is None:
            raise InvalidInput("this retriever searches by one picture or by words", "text")
        return extractor.extract_text(composite.text)
    stored = rows([*composite.image_ids, *composite.negative_ids])
    unknown = [image_id for image_id in composite.image_ids if image_id not in stored]
    if unknown:
        raise ImageNotFound(f"no features of image {unknown[0]} are stored here", "image_id")
    positive = [*pictures, *(stored[image_id] for image_id in composite.image_ids)]
    negative = [stored[image_id] for image_id in composite.negative_ids if image_id in stored]
    if composite.text is not None:
        positive.append(extractor.extract_text(composite.text))
    if composite.negative_text is not None:
        negative.append(extractor.extract_text(composite.negative_text))
    return _combined(positive, negative, composite.negative_weight)


def _combined(
    positive: Sequence[Features], negative: Sequence[Features], weight: float
) -> Features:
    if not positive:
        raise InvalidInput("give an image, an image_id or text to search by", "image")
    total = np.sum(positive, axis=0, dtype=np.float64)
    if negative:
        total -= weight * np.sum(negative, axis=0, dtype=np.float64)
    length = float(np.linalg.norm(total))
    if length < SHORTEST:
        raise InvalidInput("the parts of the query cancel each other out", "negative")
    return np.asarray(total / length, np.float32)
