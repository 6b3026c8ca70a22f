"""Several processes: the same bytes, and a clear end whatever happens to one of them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from synclave_server.sampling import engine, workers
from synclave_server.sampling.cohort_writer import PartStore, RowGroups, unfinished_folder
from synclave_server.sampling.engine import sample
from synclave_server.sampling.rows import RowForm
from synclave_server.sampling.workers import plan_jobs
from synclave_shared.errors import ConfigurationError, SamplingError
from tests.sampling.test_engine import ask

OPTIONS: dict[str, Any] = {"sampler": "ancestral", "steps": 3, "seed": 5}


def jobs(**changes: Any) -> list[workers.Job]:
    patients = changes.pop("patients", 10**6)
    parts = PartStore(
        folder=Path("/nowhere"), form=RowForm(width=12, binary=True), groups=RowGroups(patients=patients, size=16_384)
    )
    options = {"devices": ["cpu"], "workers": None, "batch_size": 256} | changes
    return plan_jobs(Path("/snapshot"), "0" * 64, ask(patients=patients), parts, **options)


def test_bytes_do_not_depend_on_the_number_of_processes_or_a_kill(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "ROW_GROUP_PATIENTS", 512)
    sample(snapshot, 3000, out=tmp_path / "one.parquet", **OPTIONS)
    killed = []

    def kill(*_: int) -> None:
        for process in multiprocessing.active_children()[:1]:
            process.kill()
            killed.append(process)

    out = tmp_path / "two.parquet"
    with pytest.raises(SamplingError) as failure:
        sample(snapshot, 3000, out=out, workers=2, progress=kill, **OPTIONS)
    assert "signal 9" in failure.value.found
    assert "same command" in failure.value.remedy
    assert killed
    assert not out.exists()
    assert multiprocessing.active_children() == []
    sample(snapshot, 3000, out=out, workers=2, **OPTIONS)
    assert out.read_bytes() == (tmp_path / "one.parquet").read_bytes()


def test_what_goes_wrong_in_a_worker_is_told(snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The snapshot is exchanged between our reading it and the worker's."""
    monkeypatch.setattr(engine, "ROW_GROUP_PATIENTS", 512)
    planned = engine.plan_jobs

    def of_another_snapshot(folder: Path, _: str, *arguments: Any, **options: Any) -> Any:
        return planned(folder, "f" * 64, *arguments, **options)

    monkeypatch.setattr(engine, "plan_jobs", of_another_snapshot)
    with pytest.raises(SamplingError, match="another one, put there meanwhile"):
        sample(snapshot, 3000, out=tmp_path / "out.parquet", workers=2, **OPTIONS)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(snapshot: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    command = [sys.executable, "-m", "synclave_server.cli", "sample", "--snapshot", str(snapshot), "--out", str(out)]
    command += ["--patients", "10000000", "--steps", "1", "--workers", "2"]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    while run.poll() is None and not list((unfinished_folder(out) / "parts").glob("*.rows")):
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    output, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "the same command goes on" in output
    assert "Traceback" not in output + errors
    assert list((unfinished_folder(out) / "parts").glob("*.rows"))
    assert not out.exists()


@pytest.mark.parametrize(
    ("cores", "patients", "asked", "processes", "threads"),
    [
        (2, 10**6, None, 1, 2),
        (16, 10**6, None, 4, 4),
        (64, 10**6, None, 7, 9),
        (64, 10_000, None, 1, 64),
        (16, 10**6, 16, 16, 1),
        (2, 10**6, 4, 4, 1),
    ],
)
def test_the_cores_are_shared_out(
    monkeypatch: pytest.MonkeyPatch, cores: int, patients: int, asked: int | None, processes: int, threads: int
) -> None:
    monkeypatch.setattr(workers.torch, "get_num_threads", lambda: cores)
    planned = jobs(patients=patients, workers=asked)
    assert [job.threads for job in planned] == [threads] * processes


def test_every_gpu_has_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.torch.cuda, "device_count", lambda: 2)
    assert [job.device for job in jobs(devices=["cuda", "cuda:1", "cuda:0"])] == ["cuda:0", "cuda:1"]
    assert [job.device for job in jobs(devices=["cuda:0", "cuda:1"], workers=3)] == ["cuda:0", "cuda:1", "cuda:0"]
    with pytest.raises(ConfigurationError, match="at least one worker"):
        jobs(devices=["cuda:0", "cuda:1"], workers=1)
    with pytest.raises(ConfigurationError, match="two kinds"):
        jobs(devices=["cuda:0", "cpu"])
