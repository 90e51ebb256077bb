"""The application statuses outside a cluster; the tests of the service cover those in a cluster."""

from __future__ import annotations

import pytest
import ray

from deployments.statuses import applications
from models.errors import RetrieverUnavailable


def test_outside_ray_it_refuses_instead_of_starting_a_cluster() -> None:
    with pytest.raises(RetrieverUnavailable, match="no Ray"):
        applications()
    assert not ray.is_initialized()
