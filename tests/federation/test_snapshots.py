"""Snapshots come back as they were written, and damage is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from synclave_server import snapshots
from synclave_server.aggregate import ServerState
from synclave_server.run_folder import RunFolder
from synclave_server.snapshots import copy_snapshot, read_snapshot, write_snapshot
from synclave_shared.errors import FederationError, SnapshotError
from synclave_shared.models.stored.snapshot import SnapshotRecord
from tests.federation.hospitals import SCHEMA, make_plan, prepare

PLAN = make_plan()
MODEL = np.arange(5, dtype=np.float32)


def write(folder: Path, round_number: int = 2, model: np.ndarray = MODEL) -> SnapshotRecord:
    return write_snapshot(
        folder,
        plan=PLAN,
        schema=SCHEMA.to_json_bytes(),
        round_number=round_number,
        model=model,
        anchor=np.ones((2, 3), np.float32),
        label_shares=np.array([0.25, 0.75], np.float32),
        server_state=ServerState(np.full(5, 0.5), np.full(5, 0.25)),
        sites=("north", "south"),
        aggregate_digest="a" * 64,
        ledger_index=7,
    )


def test_it_comes_back_as_it_was_written(tmp_path: Path) -> None:
    record = write(tmp_path / "2")
    snapshot = read_snapshot(tmp_path / "2")
    assert snapshot.record == record
    assert snapshot.plan == PLAN
    assert np.array_equal(snapshot.model, MODEL)
    assert snapshot.anchor is not None
    assert snapshot.anchor.shape == (2, 3)
    assert np.array_equal(snapshot.server_state.first, np.full(5, 0.5))
    assert {path.name for path in tmp_path.iterdir()} == {"2"}


def test_the_same_state_has_the_same_digest(tmp_path: Path) -> None:
    assert write(tmp_path / "a").tensors_digest == write(tmp_path / "b").tensors_digest
    assert write(tmp_path / "c", model=MODEL + 1).tensors_digest != write(tmp_path / "a").tensors_digest


@pytest.mark.parametrize("name", ["model.safetensors", "plan.json", "schema.json", "snapshot.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "changed"])
def test_damage_is_refused_and_named(tmp_path: Path, name: str, damage: str) -> None:
    write(tmp_path / "2")
    file = tmp_path / "2" / name
    content = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(content[:-3])
    else:
        # A digit of the digests or the plan, or a byte of a tensor.
        position = content.rindex(b"a" * 64) if name == "snapshot.json" else len(content) - 9
        content[position] ^= 0x03
        file.write_bytes(content)
    if (name, damage) == ("snapshot.json", "changed"):
        # What the record says of itself is vouched for by the ledger, not by the folder.
        assert read_snapshot(tmp_path / "2").record.aggregate_digest != "a" * 64
        return
    with pytest.raises(SnapshotError) as error:
        read_snapshot(tmp_path / "2")
    assert name.split(".")[0] in error.value.found


def test_a_snapshot_of_another_schema_is_refused(tmp_path: Path) -> None:
    write_snapshot(
        tmp_path / "2",
        plan=PLAN,
        schema=b"{}",
        round_number=1,
        model=MODEL,
        anchor=None,
        label_shares=None,
        server_state=ServerState(np.zeros(0), np.zeros(0)),
        sites=(),
        aggregate_digest="a" * 64,
        ledger_index=1,
    )
    with pytest.raises(SnapshotError, match="schema"):
        read_snapshot(tmp_path / "2")


@pytest.mark.parametrize("crash_in", ["write_atomically", "_replace_folder"])
def test_a_crash_while_writing_leaves_the_old_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_in: str
) -> None:
    before = write(tmp_path / "snapshot", 1)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(snapshots, crash_in, crash)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "snapshot", 2)
    assert read_snapshot(tmp_path / "snapshot").record == before
    write(tmp_path / "snapshot", 2)
    assert read_snapshot(tmp_path / "snapshot").record.round == 2


def test_a_copy_replaces_what_is_there(tmp_path: Path) -> None:
    write(tmp_path / "snapshot", 1)
    write(tmp_path / "2", 2)
    copy_snapshot(tmp_path / "2", tmp_path / "snapshot")
    assert read_snapshot(tmp_path / "snapshot").record.round == 2
    assert {path.name for path in tmp_path.iterdir()} == {"2", "snapshot"}


def test_a_run_folder_of_another_plan_is_left_alone(tmp_path: Path) -> None:
    run: RunFolder = prepare(tmp_path / "run", PLAN)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}

    with pytest.raises(FederationError, match="another plan"):
        prepare(tmp_path / "run", make_plan(rounds=9))
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    assert prepare(tmp_path / "run", PLAN).plan() == PLAN
