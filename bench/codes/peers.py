"""Published generators, each in a process and an environment of its own (:mod:`bench.codes.environments`).

They get all sites' patients in one table, which no federation has: a private peer's noise is added once, by somebody
whom every hospital would have to trust with its records. A one-hot group is one column of categories, as these
libraries expect.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bench.codes.environments import python_of
from synclave_shared.data.patients import PatientDataset
from synclave_shared.data.schema import Schema
from synclave_shared.data.sparse_rows import SparseRows

__all__ = ["PEERS", "Peer", "PeerFailure", "from_plain", "run_peer", "to_plain"]

LABEL = "label"

WALL_FACTOR = 12
"""Limits are of CPU time, so that other work on the machine changes no result; who hangs is ended after so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A published generator.

    Attributes:
        title: its name in the table.
        environment: where it is installed.
        private: whether it takes an epsilon.
    """

    title: str
    environment: str
    private: bool


PEERS = {
    "sdv-gaussian-copula": Peer(title="SDV GaussianCopula", environment="sdv", private=False),
    "sdv-ctgan": Peer(title="SDV CTGAN", environment="sdv", private=False),
    "sdv-tvae": Peer(title="SDV TVAE", environment="sdv", private=False),
    "smartnoise-mst": Peer(title="smartnoise-synth MST", environment="smartnoise", private=True),
    "smartnoise-aim": Peer(title="smartnoise-synth AIM", environment="smartnoise", private=True),
    "smartnoise-dpctgan": Peer(title="smartnoise-synth DP-CTGAN", environment="smartnoise", private=True),
    "smartnoise-patectgan": Peer(title="smartnoise-synth PATE-CTGAN", environment="smartnoise", private=True),
    "dpmm-mst": Peer(title="dpmm MST", environment="dpmm", private=True),
    "dpmm-aim": Peer(title="dpmm AIM", environment="dpmm", private=True),
    "dpmm-privbayes": Peer(title="dpmm PrivBayes", environment="dpmm", private=True),
}


class PeerFailure(Exception):  # noqa: N818 - it is a result of the benchmark
    """A peer did not deliver; the message says why in words for the table.

    Attributes:
        final: whether another try with the same environment and limit would end alike.
    """

    def __init__(self, reason: str, *, final: bool = True) -> None:
        super().__init__(reason)
        self.final = final


def to_plain(patients: PatientDataset, schema: Schema) -> pa.Table:
    """One small integer column per code, group and label: c0, c1, ... and ``label``."""
    columns: dict[str, Any] = {}
    rows = patients.features[:]
    for group in schema.groups:
        block = rows[:, group.start : group.stop]
        if group.kind == "categorical":
            columns[f"c{group.start}"] = block.argmax(axis=1).astype(np.int64)
        else:
            for offset in range(block.shape[1]):
                columns[f"c{group.start + offset}"] = block[:, offset].astype(np.int64)
    columns[LABEL] = patients.labels
    return pa.table(columns)


def from_plain(table: pa.Table, schema: Schema) -> PatientDataset:
    """The inverse of :func:`to_plain`; a value that is none of the column's is taken to the nearest one."""

    def column(name: str, values: int) -> NDArray[np.int64]:
        raw = table.column(name).to_numpy().astype(np.float64)
        return np.clip(np.rint(np.nan_to_num(raw)), 0, values - 1).astype(np.int64)

    features = np.zeros((table.num_rows, schema.width), np.uint8)
    for group in schema.groups:
        if group.kind == "categorical":
            chosen = column(f"c{group.start}", group.stop - group.start)
            features[np.arange(table.num_rows), group.start + chosen] = 1
        else:
            for position in range(group.start, group.stop):
                features[:, position] = column(f"c{position}", 2)
    labels = column(LABEL, len(schema.label.values))
    return PatientDataset(
        features=SparseRows.of(features), labels=labels, patient_ids=[str(number) for number in range(table.num_rows)]
    )


def run_peer(
    name: str,
    train: PatientDataset,
    schema: Schema,
    patients: int,
    *,
    epsilon: float | None,
    delta: float,
    seed: int,
    limit_s: int,
) -> tuple[PatientDataset, dict[str, Any]]:
    """Fit a peer and draw patients.

    Returns:
        The patients, and what the process reported: fit_s, sample_s (both of CPU time), epochs (or None), version.

    Raises:
        PeerFailure: if the environment is missing, the time is over, or the peer failed.
    """
    peer = PEERS[name]
    python = python_of(peer.environment)
    if not python.exists():
        raise PeerFailure(f"not installed: python -m bench.codes.environments {peer.environment}", final=False)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        pq.write_table(to_plain(train, schema), place / "train.parquet")
        command = [str(python), str(Path(__file__).with_name("peer.py")), "--name", name]
        command += ["--train", str(place / "train.parquet"), "--out", str(place / "synthetic.parquet")]
        command += ["--patients", str(patients), "--delta", repr(delta), "--seed", str(seed)]
        command += ["--time-limit", str(limit_s)] + ([] if epsilon is None else ["--epsilon", repr(epsilon)])
        with (place / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, start_new_session=True, cwd=place)
            try:
                said, _ = process.communicate(timeout=WALL_FACTOR * limit_s)
            except subprocess.TimeoutExpired:
                raise PeerFailure(f"not within {limit_s * WALL_FACTOR / 60:g} minutes") from None
            finally:
                # Its own workers too; the group is ours, since the session is new.
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if process.returncode == -signal.SIGXCPU:
            raise PeerFailure(f"not within {limit_s / 60:g} minutes of CPU time")
        if process.returncode != 0:
            lines = (place / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise PeerFailure(f"fails: {lines[-1][:160] if lines else f'exit status {process.returncode}'}")
        report: dict[str, Any] = json.loads(said.decode().strip().splitlines()[-1])
        return from_plain(pq.read_table(place / "synthetic.parquet"), schema), report
