"""What Ray says goes to a log: real services and jobs, and a real Ray that has much to say."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.service.data_folder import job_log, running_service, service_log
from cluster.service.environment import RAY_ENVIRONMENT
from cluster.service.terminal import output_in
from tests.conftest import AMBIENCE, Service, light_config
from tests.drawing import jpeg

WARNING = "WARNING: 99 PYTHON worker processes have been started"
PUBLISH = """
import sys, time, ray
from ray._private.utils import publish_error_to_driver
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
worker = ray._private.worker.global_worker
publish_error_to_driver("worker_pool_large", sys.argv[2], gcs_client=worker.gcs_client)
time.sleep(1)
"""
"""Says to every driver of a Ray what its raylet says of many workers."""


def command(*arguments: str, data: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(AMBIENCE), *arguments, "--config", str(light_config())],
        env=os.environ | {"AMBIENCE_DATA": str(data)} | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_a_warning_of_rays_about_many_workers_goes_to_the_services_log(
    shared_service: Service,
) -> None:
    address = running_service(shared_service.data).ray_address
    publish = [sys.executable, "-c", PUBLISH, address, WARNING]
    subprocess.run(publish, env=os.environ | RAY_ENVIRONMENT, check=True, timeout=60)
    until = time.monotonic() + 20
    while WARNING not in service_log(shared_service.data).read_text():
        assert time.monotonic() < until
        time.sleep(0.1)
    assert "worker processes" not in shared_service.log.read_text()
    assert "ambience is ready at" in shared_service.log.read_text()


@pytest.mark.parametrize("beside", [True, False], ids=["beside a service", "alone"])
def test_of_a_backfill_a_person_sees_its_own_words_and_the_log_has_rays(
    service: Service, tmp_path: Path, beside: bool
) -> None:
    data = service.data if beside else tmp_path / "data"
    (tmp_path / "pictures").mkdir()
    for seed in range(3):
        (tmp_path / "pictures" / f"{seed}.jpg").write_bytes(jpeg(seed, 160, 120))
    pictures = str(tmp_path / "pictures")
    done = command("backfill", pictures, data=data, RAY_BACKEND_LOG_LEVEL="info")
    assert (done.returncode, done.stdout) == (0, "3 indexed, 0 there already, 0 bad.\n")
    assert done.stderr.startswith("indexing ")
    assert len(done.stderr.splitlines()) == 1
    assert "logging.cc" in job_log(data).read_text()


def test_an_error_that_ends_a_start_is_told_and_not_only_logged(tmp_path: Path) -> None:
    program = (
        "import os, sys\nfrom pathlib import Path\n"
        "from cluster.service.terminal import output_in\n"
        "with output_in(Path(sys.argv[1])) as terminal:\n"
        "    print('of Python')\n    os.system('echo of a child >&2')\n"
        "    print('for a person', file=terminal.out)\n    raise OSError('the end')\n"
    )
    log = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", program, str(log)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == "for a person\n"
    assert done.stderr.endswith("OSError: the end\n")
    assert sorted(log.read_text().splitlines()) == ["of Python", "of a child"]


def test_the_log_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("of an earlier run")
    with output_in(tmp_path / "log"):
        os.write(1, b"of this one")
    assert (tmp_path / "log").read_text() == "of this one"
