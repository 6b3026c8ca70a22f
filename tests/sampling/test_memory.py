"""Memory does not grow with the number of patients."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from synclave_server.aggregate import ServerState
from synclave_server.snapshots import write_snapshot
from synclave_shared.data.schema import Schema
from tests.models.small import small_plan, small_schema

CODES = 400
ALLOWANCE = 32 * 2**20
"""Bytes; 180,000 more patients of 400 columns would be 72 MB, one byte per value."""

SCRIPT = """
import sys
from pathlib import Path
from synclave_server.sampling.engine import sample
sample(Path(sys.argv[1]), int(sys.argv[2]), out=Path(sys.argv[3]), sampler="ddim", steps=1)
status = Path("/proc/self/status").read_text(encoding="ascii")
print(int(status.partition("VmHWM:")[2].split()[0]) * 1024)
"""


def peak_bytes(snapshot: Path, patients: int, out: Path) -> int:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(snapshot), str(patients), str(out)],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(run.stdout)


def test_ten_times_the_patients_need_the_same_memory(tmp_path: Path) -> None:
    document = small_schema().model_dump(mode="json")
    document["fields"][0]["vocabulary"] = [{"code": f"c{number}"} for number in range(CODES)]
    schema = Schema.model_validate(document)
    width = schema.width
    write_snapshot(
        tmp_path / "snapshot",
        plan=small_plan().model_copy(update={"schema_digest": schema.digest}),
        schema=schema.to_json_bytes(),
        round_number=1,
        model=np.zeros(width * (width + 1) // 2, np.float32),
        anchor=None,
        label_shares=None,
        server_state=ServerState(np.zeros(0), np.zeros(0)),
        sites=("north", "south"),
        aggregate_digest="0" * 64,
        ledger_index=1,
    )
    few = peak_bytes(tmp_path / "snapshot", 20_000, tmp_path / "few.parquet")
    many = peak_bytes(tmp_path / "snapshot", 200_000, tmp_path / "many.parquet")
    assert many < few + ALLOWANCE
