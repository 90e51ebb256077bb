"""What a job reserves fits beside a service, and networks get their GPUs."""

from __future__ import annotations

import pytest

from cluster.jobs.resources import Resources


@pytest.mark.parametrize("cores", [1, 2, 8, 16])
@pytest.mark.parametrize("networks", [0, 1, 3])
@pytest.mark.parametrize("gpus", [0, 1, 4])
def test_everything_that_is_reserved_fits_beside_a_service(
    cores: int, networks: int, gpus: int
) -> None:
    resources = Resources(cores, gpus, gpus / 3, readers=cores)
    shares = resources.network_shares([None] * networks)
    cpus = sum(share.workers * share.cpus for share in shares)
    cpus += resources.readers * resources.reader_cpus + resources.writer_cpus
    assert 0.5 * cores < cpus <= 0.71 * cores
    assert sum(share.workers * share.gpus for share in shares) <= gpus / 3 + 1e-9


def test_each_network_has_a_worker_on_each_gpu_with_the_share_of_its_replicas() -> None:
    shares = Resources(16, 2, 2, 16).network_shares([0.25, 0.1])
    assert [(share.workers, share.gpus) for share in shares] == [(2, 0.25), (2, 0.1)]
    assert all(share.on_gpu for share in shares)


def test_where_a_service_has_reserved_the_gpu_the_rest_is_divided() -> None:
    shares = Resources(16, 1, 0.25, 16).network_shares([0.25, 0.25, None])
    assert [share.gpus for share in shares] == [0.0833] * 3
    assert [share.gpus for share in Resources(16, 1, 0, 16).network_shares([0.25])] == [0.0]


def test_without_a_gpu_half_as_many_workers_as_cores_run_each_network() -> None:
    shares = Resources(8, 0, 0, 8).network_shares([None, 0.5])
    assert [(share.workers, share.gpus, share.on_gpu) for share in shares] == [(4, 0, False)] * 2
