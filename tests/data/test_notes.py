"""Notes: three kinds of file, every fault, and chunks of one length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from synclave_shared.data.modality import check_folder, load_schema, schema_from_json
from synclave_shared.data.notes.dataset import Note, NotesDataset
from synclave_shared.data.notes.reading import LONGEST_NOTE, load_notes, read_notes
from synclave_shared.data.notes.schema import NotesSchema
from synclave_shared.errors import DataError, SchemaError
from synclave_shared.text.chunks import encode_notes
from synclave_shared.text.tokenizer import embedded_tokenizer
from tests.models.small_notes import notes_schema

SCHEMA = notes_schema()
EXAMPLE = Path(__file__).parents[2] / "examples" / "notes"


def row(patient: str, text: str | None, **other: Any) -> dict[str, Any]:
    return {"patient": patient, "day": 1, "died": "no", "kind": "consult", "name": "Val", "text": text, **other}


ROWS = [
    row("b", "Second note,\nwith a line.", day=2, name="Val F."),
    row("a", 'Chest pain, "sharp".\r\nBad\x07byte.', died="yes"),
    row("b", "First note."),
    row("c", None),
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(entry) for entry in rows) + "\n\n", encoding="utf-8")
    elif path.suffix == ".csv":
        pa.csv.write_csv(pa.Table.from_pylist(rows), path)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def codes_of(path: Path) -> set[str]:
    dataset, report = read_notes(SCHEMA, path)
    assert dataset is None
    return {code for _, _, code in report.fault_counts}


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_patient_is_one_item_with_all_notes_in_order(tmp_path: Path, ending: str) -> None:
    write(tmp_path / f"notes.{ending}", ROWS)
    dataset, report = read_notes(SCHEMA, tmp_path)
    assert dataset is not None
    assert dataset.patient_ids == ["a", "b"]
    assert dataset.notes[0] == (Note(text='Chest pain, "sharp".\nBad byte.', type="consult"),)
    assert [note.text for note in dataset.notes[1]] == ["First note.", "Second note,\nwith a line."]
    assert dataset.identifiers == ((("names", "Val"),), (("names", "Val"), ("names", "Val F.")))
    assert dataset.labels.tolist() == [1, 0]
    assert {notice.code: notice.count for notice in report.notices} == {"missing": 1, "no-notes": 1}
    assert check_folder(SCHEMA, tmp_path).ok


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"kind": "poem"}, "outside-vocabulary"),
        ({"kind": None}, "missing-value"),
        ({"died": "perhaps"}, "outside-vocabulary"),
        ({"patient": None}, "null-key"),
        ({"text": "x" * (LONGEST_NOTE + 1)}, "too-long"),
        ({"text": ["a", "list"]}, "wrong-type"),
        ({"text": "half a pair \ud800"}, "wrong-encoding"),
        ({"day": "Monday"}, "bad-order"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, change: dict[str, Any], code: str) -> None:
    write(tmp_path / "notes.jsonl", [*ROWS, row("d", "Fever.") | change])
    assert code in codes_of(tmp_path)


def test_files_that_are_no_notes_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "one" / "notes.jsonl", ROWS)
    path.write_text(path.read_text() + "[1, 2]\n{broken\n", encoding="utf-8")
    dataset, report = read_notes(SCHEMA, tmp_path / "one")
    assert dataset is None
    assert [(fault.code, fault.row) for fault in report.faults] == [("bad-line", 6), ("bad-line", 7)]
    without = [{name: value for name, value in entry.items() if name != "text"} for entry in ROWS]
    assert codes_of(write(tmp_path / "two" / "notes.jsonl", without).parent) == {"missing-column"}
    assert codes_of(write(tmp_path / "three" / "notes.jsonl", [row("a", " \x00 ")]).parent) == {"no-patients"}
    (tmp_path / "four").mkdir()
    (tmp_path / "four" / "notes.jsonl").write_bytes(b"")
    assert codes_of(tmp_path / "four")
    with pytest.raises(DataError, match="wrong-origin"):
        load_notes(SCHEMA, write(tmp_path / "five.jsonl", [row("a", "Fever.", _origin="synthetic")]))


def test_the_example_fits_its_schema_which_is_read_back_from_its_json() -> None:
    schema = load_schema(EXAMPLE / "schema.toml")
    assert isinstance(schema, NotesSchema)
    assert schema_from_json(schema.to_json_bytes()) == schema
    for folder in [*(EXAMPLE / "sites").iterdir(), EXAMPLE / "public"]:
        assert check_folder(schema, folder).ok
    assert sum(path.stat().st_size for path in EXAMPLE.rglob("*.parquet")) < 600_000


def test_a_schema_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    text = (EXAMPLE / "schema.toml").read_text()
    for wrong in (text.replace('type = "type"', ""), text.replace('"other"]', '"other", "other"]')):
        (tmp_path / "schema.toml").write_text(wrong)
        with pytest.raises(SchemaError, match="notes"):
            load_schema(tmp_path / "schema.toml")


def dataset_of(*texts: str) -> NotesDataset:
    return NotesDataset(
        notes=(tuple(Note(text=text, type="consult") for text in texts),),
        identifiers=((),),
        labels=np.array([1]),
        patient_ids=["a"],
    )


def test_chunks_have_one_length_and_ask_for_words_of_the_text_alone() -> None:
    tokenizer = embedded_tokenizer()
    chunks = encode_notes(dataset_of("[PATIENT] has chest pain since [DATE].\nNo fever."), SCHEMA, tokenizer)
    assert chunks.ids.shape == chunks.predictable.shape == (1, SCHEMA.notes.tokens)
    assert chunks.most == SCHEMA.notes.chunks
    text = tokenizer.decode(chunks.ids[0].tolist())
    assert text.startswith("[CLS]consult, died: yes[SEP][PATIENT] has chest pain since [DATE].\nNo fever.[SEP][PAD]")
    asked = tokenizer.decode(chunks.ids[0][chunks.predictable[0]].tolist())
    assert asked == " has chest pain since .\nNo fever."


def test_long_notes_are_cut_near_line_breaks_and_no_patient_has_more_chunks_than_the_schema_says() -> None:
    tokenizer = embedded_tokenizer()
    line = "The patient denies fever and chest pain today.\n"
    chunks = encode_notes(dataset_of(line * 4, line * 400), SCHEMA, tokenizer)
    assert chunks.starts.tolist() == [0, 3]
    for ids, predictable in zip(chunks.ids, chunks.predictable, strict=True):
        assert tokenizer.decode(ids[predictable].tolist()).endswith("\n")
    # One line without end is cut all the same, and a note of nothing but slots asks for nothing.
    assert len(encode_notes(dataset_of("pain " * 10_000), SCHEMA, tokenizer).ids) == SCHEMA.notes.chunks
    assert not encode_notes(dataset_of("[DATE][PATIENT]"), SCHEMA, tokenizer).predictable.any()
