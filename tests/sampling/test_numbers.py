"""Numbers are drawn inside their bins, by the patient's own random numbers."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from synclave_server.aggregate import ServerState
from synclave_server.sampling import engine
from synclave_server.snapshots import write_snapshot
from synclave_shared.data.patient_table import read_patient_table
from synclave_shared.data.schema import Schema
from tests.models.small import small_plan, small_schema


def schema_with_a_number() -> Schema:
    document = small_schema().model_dump(mode="json")
    age = {"name": "age", "kind": "number", "table": "visits", "column": "age", "unit": "years", "minimum": "0"}
    age |= {"maximum": "99", "edges": ["40", "80"], "integer": True, "combine": "last", "outside": "fault"}
    document["fields"].append({**age, "missing": "own-category"})
    return Schema.model_validate(document)


def test_numbers_do_not_depend_on_how_a_cohort_was_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = schema_with_a_number()
    write_snapshot(
        tmp_path / "snapshot",
        plan=small_plan().model_copy(update={"schema_digest": schema.digest}),
        schema=schema.to_json_bytes(),
        round_number=1,
        model=np.zeros(schema.width * (schema.width + 1) // 2, np.float32),
        anchor=None,
        label_shares=None,
        server_state=ServerState(np.zeros(0), np.zeros(0)),
        sites=("north", "south"),
        aggregate_digest="0" * 64,
        ledger_index=1,
    )
    found = []
    for size in (512, 256):
        monkeypatch.setattr(engine, "ROW_GROUP_PATIENTS", size)
        out = tmp_path / f"{size}.parquet"
        engine.sample(tmp_path / "snapshot", 2000, out=out, workers=1, steps=2, seed=3)
        found.append(pq.read_table(out)["age"].to_pylist())
    assert found[0] == found[1]
    # About 500 patients in each bin, of which a number has one chance in forty.
    assert set(found[0]) == {*range(100), None}
    bins = read_patient_table(schema, out).features[:][:, -4:].argmax(axis=1)
    expected = [3 if age is None else int(np.searchsorted([40, 80], age, side="right")) for age in found[0]]
    assert bins.tolist() == expected
