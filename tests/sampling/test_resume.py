"""Killed, interrupted or refused: what is on disk afterwards, and what the next call makes of it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from synclave_server.sampling import cohort_writer, engine, kinds
from synclave_server.sampling.cohort_formats import CODE_FORMATS, CohortFormat, Write
from synclave_server.sampling.cohort_writer import (
    PartStore,
    RowGroups,
    UnfinishedCohort,
    digest_of,
    unfinished_folder,
)
from synclave_server.sampling.engine import Provenance, sample
from synclave_server.sampling.generator import PatientGenerator
from synclave_server.sampling.rows import DrawnPatients, RowForm
from synclave_shared.canonical import sha256_hex
from synclave_shared.data.modality import AnySchema
from synclave_shared.errors import ConfigurationError

PATIENTS, GROUP = 3000, 512
OPTIONS: dict[str, Any] = {"sampler": "ddim", "steps": 3, "seed": 5}

DOOMED = f"""
import os, signal, sys
from pathlib import Path
from synclave_server.sampling import cohort_writer, engine, kinds

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def die_half_way(path, data):
    Path(str(path) + ".part").write_bytes(data[: len(data) // 2])
    die()

def after(calls, function, then):
    seen = 0
    def counted(*arguments):
        nonlocal seen
        seen += 1
        return then(*arguments) if seen > calls else function(*arguments)
    return counted

engine.ROW_GROUP_PATIENTS = {GROUP}
write = cohort_writer.PartStore.write
atomically = cohort_writer.write_atomically
if sys.argv[3] == "before the first part":
    cohort_writer.PartStore.write = after(0, write, die)
elif sys.argv[3] == "after the third part":
    cohort_writer.PartStore.write = after(3, write, die)
elif sys.argv[3] == "inside the second part":
    cohort_writer.write_atomically = after(2, atomically, die_half_way)
elif sys.argv[3] == "before the file has its name":
    cohort_writer.UnfinishedCohort.publish = die
elif sys.argv[3] == "between the file and its provenance":
    cohort_writer.write_atomically = after(7, atomically, die)
engine.sample(Path(sys.argv[1]), {PATIENTS}, out=Path(sys.argv[2]), **{OPTIONS!r})
"""


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "ROW_GROUP_PATIENTS", GROUP)


@pytest.fixture(scope="module")
def whole(snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file that an undisturbed run writes."""
    out = tmp_path_factory.mktemp("whole") / "out.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "ROW_GROUP_PATIENTS", GROUP)
        sample(snapshot, PATIENTS, out=out, **OPTIONS)
    return out.read_bytes()


class Stop(Exception):  # noqa: N818 - it is no error
    """Stands for whatever ends a run."""


def stop_at(patients: int) -> Any:
    def progress(done: int, _: int) -> None:
        if done >= patients:
            raise Stop

    return progress


def interrupted(snapshot: Path, out: Path, patients: int = 1500) -> Path:
    with pytest.raises(Stop):
        sample(snapshot, PATIENTS, out=out, progress=stop_at(patients), **OPTIONS)
    return unfinished_folder(out)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("instant", "parts"),
    [
        ("before the first part", 0),
        ("inside the second part", 1),
        ("after the third part", 3),
        ("before the file has its name", 6),
        ("between the file and its provenance", 6),
    ],
)
def test_killed_and_called_again_it_ends_with_the_same_bytes(
    snapshot: Path, tmp_path: Path, whole: bytes, instant: str, parts: int
) -> None:
    out = tmp_path / "out.parquet"
    killed = subprocess.run([sys.executable, "-c", DOOMED, str(snapshot), str(out), instant], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list((unfinished_folder(out) / "parts").glob("*.rows"))) == parts
    assert out.exists() == (instant == "between the file and its provenance")
    seen: list[int] = []
    provenance = sample(snapshot, PATIENTS, out=out, progress=lambda done, _: seen.append(done), **OPTIONS)
    assert seen[0] == min(parts * GROUP, PATIENTS)
    assert out.read_bytes() == whole
    assert provenance.file_digest == sha256_hex(whole)
    assert {path.name for path in tmp_path.iterdir()} == {out.name, out.name + ".provenance.json"}


def test_two_workers_killed_from_outside_leave_what_one_goes_on_with(
    snapshot: Path, tmp_path: Path, whole: bytes
) -> None:
    out = tmp_path / "out.parquet"
    script = (
        "import sys; from pathlib import Path; from synclave_server.sampling import engine\n"
        f"if __name__ == '__main__':\n    engine.ROW_GROUP_PATIENTS = {GROUP}\n"
        f"    engine.sample(Path(sys.argv[1]), {PATIENTS}, out=Path(sys.argv[2]), workers=2, **{OPTIONS!r})"
    )
    file = tmp_path / "script.py"
    file.write_text(script, encoding="utf-8")
    run = subprocess.Popen([sys.executable, str(file), str(snapshot), str(out)])
    while run.poll() is None and not list((unfinished_folder(out) / "parts").glob("*.rows")):
        time.sleep(0.01)
    run.kill()
    run.wait()
    sample(snapshot, PATIENTS, out=out, **OPTIONS)
    assert out.read_bytes() == whole
    assert not unfinished_folder(out).exists()


def test_an_interrupted_run_keeps_its_finished_parts_and_the_old_file(
    snapshot: Path, tmp_path: Path, whole: bytes
) -> None:
    out = tmp_path / "out.parquet"
    out.write_bytes(b"old")
    folder = interrupted(snapshot, out)
    assert out.read_bytes() == b"old"
    drawn: list[int] = []
    features = PatientGenerator.features

    def watched(self: PatientGenerator, request: Any, patients: Any, labels: Any) -> Any:
        drawn.extend(patients.tolist())
        return features(self, request, patients, labels)

    kept = len(list((folder / "parts").glob("*.rows")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PatientGenerator, "features", watched)
        sample(snapshot, PATIENTS, out=out, **OPTIONS)
    assert kept >= 1
    assert sorted(drawn) == list(range(kept * GROUP, PATIENTS))
    assert out.read_bytes() == whole


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 6}, "request.seed 5, now 6"),
        ({"steps": 4}, "request.steps 3, now 4"),
        ({"precision": "bfloat16"}, "request.precision float32, now bfloat16"),
        ({"label_counts": {"yes": PATIENTS}}, "request.label_counts.no 2100, now 0"),
    ],
)
def test_another_request_into_an_unfinished_output_is_refused_and_nothing_changed(
    snapshot: Path, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    out = tmp_path / "out.parquet"
    before = content(interrupted(snapshot, out))
    with pytest.raises(ConfigurationError) as refused:
        sample(snapshot, PATIENTS, out=out, **(OPTIONS | changes))
    assert named in refused.value.found
    assert str(unfinished_folder(out)) in refused.value.remedy
    assert content(unfinished_folder(out)) == before


def test_a_second_process_on_the_same_output_is_refused_and_harms_nothing(
    snapshot: Path, tmp_path: Path, whole: bytes
) -> None:
    out = tmp_path / "out.parquet"
    refusals = []

    def meanwhile(done: int, _: int) -> None:
        if done == GROUP:
            with pytest.raises(ConfigurationError) as refused:
                sample(snapshot, PATIENTS, out=out, **OPTIONS)
            refusals.append(refused.value.expected)

    sample(snapshot, PATIENTS, out=out, progress=meanwhile, **OPTIONS)
    assert refusals == ["out.parquet to be written by one process at a time"]
    assert out.read_bytes() == whole


def test_a_truncated_part_is_drawn_again(snapshot: Path, tmp_path: Path, whole: bytes) -> None:
    out = tmp_path / "out.parquet"
    part = interrupted(snapshot, out) / "parts" / "0000000.rows"
    part.write_bytes(part.read_bytes()[:-1])
    sample(snapshot, PATIENTS, out=out, **OPTIONS)
    assert out.read_bytes() == whole


def test_a_finished_cohort_asked_for_again_is_made_again(snapshot: Path, tmp_path: Path, whole: bytes) -> None:
    out = tmp_path / "out.parquet"
    for _ in range(2):
        sample(snapshot, PATIENTS, out=out, **OPTIONS)
        assert out.read_bytes() == whole


@pytest.mark.parametrize("width", [1, 7, 8, 9, 619])
def test_a_part_gives_back_the_rows(tmp_path: Path, width: int) -> None:
    store = PartStore(folder=tmp_path, form=RowForm(width=width, binary=True), groups=RowGroups(patients=70, size=50))
    rows = np.random.default_rng(0).integers(0, 2, (20, width), np.uint8)
    assert store.finished() == []
    store.write(1, store.form.pack(rows))
    assert store.finished() == [1]
    assert np.array_equal(store.read(1), rows)
    assert [path.name for path in tmp_path.iterdir()] == ["0000001.rows"]


def test_a_folder_has_a_digest_of_names_and_contents(tmp_path: Path) -> None:
    folder = tmp_path / "cohort"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "0.parquet").write_bytes(b"a")
    first = digest_of(folder)
    (folder / "data" / "0.parquet").rename(folder / "data" / "1.parquet")
    assert digest_of(folder) != first
    (folder / "data" / "1.parquet").rename(folder / "data" / "0.parquet")
    assert digest_of(folder) == first


@contextmanager
def in_a_folder(path: Path, _schema: AnySchema, notes: Mapping[str, str]) -> Iterator[Write]:
    """A format that is a folder: one file for each row group and one at the end."""
    path.mkdir()
    groups: list[int] = []

    def write(some: DrawnPatients) -> None:
        groups.append(len(some.numbers))
        columns = np.concatenate([some.numbers[:, None], some.labels[:, None], some.rows], 1)
        np.save(path / f"{len(groups)}.npy", columns)

    yield write
    (path / "about.json").write_text(json.dumps([groups, dict(notes)]), encoding="utf-8")


def test_a_format_may_be_a_folder(snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        kinds, "CODE_FORMATS", {**CODE_FORMATS, "folder": CohortFormat(writer=in_a_folder, suffix=None)}, raising=True
    )
    options: dict[str, Any] = OPTIONS | {"cohort_format": "folder"}
    whole = sample(snapshot, PATIENTS, out=tmp_path / "whole", **options)
    out = tmp_path / "out"
    with pytest.raises(Stop):
        sample(snapshot, PATIENTS, out=out, progress=stop_at(1500), **options)
    assert not out.exists()
    provenance = sample(snapshot, PATIENTS, out=out, **options)
    assert content(out) == content(tmp_path / "whole")
    assert provenance == whole
    assert provenance.file_digest == digest_of(out)
    assert {path.name for path in tmp_path.iterdir()} >= {"out", "out.provenance.json"}
    assert not unfinished_folder(out).exists()
    before = content(tmp_path)
    with pytest.raises(ConfigurationError, match="a new or empty folder"):
        sample(snapshot, PATIENTS, out=out, **options)
    assert content(tmp_path) == before


def test_every_row_group_of_the_file_is_a_part(snapshot: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    provenance = sample(snapshot, PATIENTS, out=out, **OPTIONS)
    file = pq.ParquetFile(out)
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [GROUP] * 5 + [440]
    ids = file.read(["patient_id"])["patient_id"].to_pylist()
    assert ids == [f"synthetic-{number:010d}" for number in range(PATIENTS)]
    assert Provenance.model_validate(json.loads(Path(f"{out}.provenance.json").read_bytes())) == provenance


def test_a_folder_that_cannot_be_written_is_named(snapshot: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="to write"):
        sample(snapshot, PATIENTS, out=tmp_path / "file" / "out.parquet", **OPTIONS)


def test_the_lock_of_a_removed_folder_is_not_taken_for_the_lock(tmp_path: Path) -> None:
    """Whoever waited for a finished cohort's folder must not go on in a folder without a name."""
    out = tmp_path / "out.parquet"
    groups = RowGroups(patients=1, size=1)
    taken = []
    flock = cohort_writer.fcntl.flock

    def removed_meanwhile(descriptor: int, operation: int) -> None:
        flock(descriptor, operation)
        if not taken:
            os.rmdir(unfinished_folder(out))
        taken.append(os.fstat(descriptor).st_ino)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cohort_writer.fcntl, "flock", removed_meanwhile)
        with UnfinishedCohort.open(out, CODE_FORMATS["parquet"], {}, form=RowForm(width=1, binary=True), groups=groups):
            assert len(taken) == 2
            assert unfinished_folder(out).stat().st_ino == taken[1]
