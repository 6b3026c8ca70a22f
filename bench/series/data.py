"""Data sets and tasks for the arms: ``python -m bench.series.data --source FOLDER --out FOLDER``.

Makes one folder a task from the public data sets, laid out like examples/sepsis: ``schema.toml``, ``sites`` and
``held-out``, each with a folder a site. Who is held out is decided by a hash of the patient's identifier. The schemas
are those of examples/ with the task's label; nothing of the patients is kept in the repository.

Sites are the two hospitals (sepsis), the kinds of intensive care unit (ICU 2012, one hospital) and the nodes of the
eICU demo, groups of hospitals by region and size, since its single hospitals have 10 to 40 stays.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

__all__ = ["TASKS", "Task", "make_task", "order_of"]

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
STATIC: Final = ("Age", "Gender", "Unit1", "HospAdmTime")
"""What does not change, in the table of hours of the sepsis data."""
LABEL: Final = re.compile(r"\[label\]\n(?:[^\[\n].*\n)+")

Rows = Mapping[str, tuple[pa.Table, NDArray[Any]]]
"""Tables by name, each with the patient of every row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A question that a clinical model answers from the first day or two.

    Attributes:
        schema: the example's, below ``examples``.
        label: name, title and table of a label of its own, 0 or 1 in the column of that name; None: the example's.
        read: from the folder of the data sets to the tables, and the site of every patient who takes part.
        held_out: share of the patients, or how many of each site beside how many for training.
    """

    schema: str
    label: tuple[str, str, str] | None
    read: Callable[[Path], tuple[Rows, dict[Any, str]]]
    held_out: float | tuple[int, int]


def order_of(patients: Iterable[Any]) -> list[Any]:
    """Patients in the order of a hash of the identifier."""
    return sorted(patients, key=lambda one: hashlib.sha256(f"synclave-series:{one}".encode()).hexdigest())


def split(site_of: Mapping[Any, str], held_out: float | tuple[int, int]) -> dict[tuple[str, str], list[Any]]:
    """Patients of each place and site; those of the held-out place come first in the order of the hash."""
    places: dict[tuple[str, str], list[Any]] = {}
    for site in sorted(set(site_of.values())):
        order = order_of(patient for patient, where in site_of.items() if where == site)
        many, rest = held_out if isinstance(held_out, tuple) else (round(held_out * len(order)), len(order))
        places["held-out", site], places["sites", site] = order[:many], order[many : many + rest]
    return places


def make_task(name: str, source: Path, out: Path) -> None:
    """Write ``out/name``."""
    task = TASKS[name]
    rows, site_of = task.read(source)
    folder = out / name
    for (place, site), patients in split(site_of, task.held_out).items():
        for table, (whole, owners) in rows.items():
            chosen = pa.array(np.isin(owners, np.array(patients, owners.dtype)))
            (folder / place / site).mkdir(parents=True, exist_ok=True)
            pq.write_table(whole.filter(chosen), folder / place / site / f"{table}.parquet", compression="zstd")
        print(f"{name} {place} {site}: {len(patients)} patients", flush=True)
    text = (EXAMPLES / task.schema).read_text(encoding="utf-8")
    if task.label is not None:
        label, title, table = task.label
        lines = [
            "[label]",
            f'name = "{label}"',
            f'title = "{title}"',
            'values = ["no", "yes"]',
            f'table = "{table}"',
            f'column = "{label}"',
            'mapping = { "0" = "no", "1" = "yes" }',
            'combine = "any"',
            'missing = "fault"',
        ]
        text, found = LABEL.subn("\n".join(lines) + "\n", text)
        assert found == 1, task.schema
    (folder / "schema.toml").write_text(text, encoding="utf-8")


def pressure_next_day(source: Path) -> tuple[Rows, dict[Any, str]]:
    """Patients whose mean arterial pressure was measured on the second day, with whether it fell below 60 mmHg."""
    patients, hours, site_of = [], [], {}
    for hospital in ("A", "B"):
        table = pq.read_table(source / "sepsis-2019" / f"hospital_{hospital}.parquet").replace_schema_metadata(None)
        table = table.sort_by([("patient_id", "ascending"), ("ICULOS", "ascending")])
        everyone, first, patient = np.unique(table["patient_id"].to_numpy(), return_index=True, return_inverse=True)
        hour = table["ICULOS"].to_numpy()
        since = hour - hour[first][patient]
        pressure = np.where((since >= 24) & (since < 48), table["MAP"].to_numpy(), np.nan)
        lowest = np.full(len(everyone), np.inf)
        np.fmin.at(lowest, patient, pressure)
        known = np.isfinite(lowest)
        site_of |= dict.fromkeys(everyone[known].tolist(), f"hospital-{hospital.lower()}")
        static = table.take(pa.array(first[known])).select(["patient_id", *STATIC])
        patients.append(static.append_column("hypotension", pa.array((lowest[known] < 60).astype(np.int8))))
        early = table.filter(pa.array((since < 24) & known[patient]))
        # The kinds of unit and the label of sepsis are in the patients' table, or no part of this task.
        hours.append(early.drop_columns([*STATIC, "Unit2", "SepsisLabel", "hospital"]))
    return owned({"patients": pa.concat_tables(patients), "hours": pa.concat_tables(hours)}, "patient_id"), site_of


def icu_stays(source: Path, *, long: bool) -> tuple[Rows, dict[Any, str]]:
    """Sets a and b; with ``long`` those of known length of stay, with whether it was more than 7 days."""
    folder = source / "icu-2012"
    stays, events = (
        pa.concat_tables(
            [pq.read_table(folder / f"{kind}_set_{one}.parquet") for one in "ab"], promote_options="default"
        )
        for kind in ("stays", "events")
    )
    columns = ["RecordID", "Age", "Gender", "In-hospital_death"]
    if long:
        stays = stays.filter(pc.greater_equal(stays["Length_of_stay"], 0))
        columns[-1] = "long_stay"
        stays = stays.append_column("long_stay", pc.greater(stays["Length_of_stay"], 7).cast(pa.int8()))
    kinds = [kind.lower().removesuffix(" unit").replace(" ", "-") for kind in stays["ICUTypeName"].to_pylist()]
    site_of = dict(zip(stays["RecordID"].to_pylist(), kinds, strict=True))
    return owned({"stays": stays.select(columns), "events": events}, "RecordID"), site_of


def eicu_stays(source: Path, *, long: bool) -> tuple[Rows, dict[Any, str]]:
    """First stays; with ``long`` those of at least a day in the unit, with whether it was more than 3."""
    table = pq.read_table(source / "eicu-demo" / "tables" / "patient.parquet").sort_by("patientunitstayid")
    _, first = np.unique(np.array(table["uniquepid"].to_pylist()), return_index=True)
    stays = table.take(pa.array(np.sort(first)))
    columns = ["uniquepid", "patientunitstayid", "age", "gender", "unittype", "hospitaldischargestatus"]
    if long:
        stays = stays.filter(pc.greater_equal(stays["unitdischargeoffset"], 24 * 60))
        columns[-1] = "long_stay"
        stays = stays.append_column("long_stay", pc.greater(stays["unitdischargeoffset"], 72 * 60).cast(pa.int8()))
    hours = pq.read_table(source / "eicu-demo" / "hourly" / "hourly.parquet")
    hours = hours.rename_columns(["patientunitstayid" if name == "stay_id" else name for name in hours.column_names])
    nodes = [node.lower().replace("_", "-") for node in stays["node"].to_pylist()]
    site_of = dict(zip(stays["patientunitstayid"].to_pylist(), nodes, strict=True))
    return owned({"patient": stays.select(columns), "hourly": hours}, "patientunitstayid"), site_of


def owned(tables: Mapping[str, pa.Table], column: str) -> Rows:
    return {name: (table, table[column].to_numpy()) for name, table in tables.items()}


TASKS: Final[Mapping[str, Task]] = {
    "sepsis-hypotension": Task(
        schema="sepsis/schema.toml",
        label=("hypotension", "Mean arterial pressure below 60 mmHg on the second day", "patients"),
        read=pressure_next_day,
        held_out=(1000, 1500),
    ),
    "icu-2012-death": Task(
        schema="icu-2012/schema.toml", label=None, read=lambda source: icu_stays(source, long=False), held_out=0.25
    ),
    "icu-2012-long-stay": Task(
        schema="icu-2012/schema.toml",
        label=("long_stay", "In hospital for more than 7 days", "stays"),
        read=lambda source: icu_stays(source, long=True),
        held_out=0.25,
    ),
    "eicu-death": Task(
        schema="eicu/series.toml", label=None, read=lambda source: eicu_stays(source, long=False), held_out=0.4
    ),
    "eicu-long-stay": Task(
        schema="eicu/series.toml",
        label=("long_stay", "In the unit for more than 3 days, of patients there for one", "patient"),
        read=lambda source: eicu_stays(source, long=True),
        held_out=0.4,
    ),
}
"""Beside examples/sepsis, whose task is sepsis during the stay."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder with the public data sets")
    parser.add_argument("--out", type=Path, required=True, help="where to write a folder a task")
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS))
    arguments = parser.parse_args()
    for name in arguments.only:
        make_task(name, arguments.source, arguments.out)


if __name__ == "__main__":
    main()
