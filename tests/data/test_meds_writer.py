"""Synthetic patients as MEDS: valid for other programs, and read back bit by bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from synclave_shared.data.meds.codes import column_codes, written_schema
from synclave_shared.data.meds.importing import import_meds
from synclave_shared.data.meds.writer import NOTES_FILE, SCHEMA_FILE, MedsWriter
from synclave_shared.data.schema import Schema
from synclave_shared.data.tables import check_folder, load_patients
from synclave_shared.errors import ConfigurationError, DataError, SchemaError

from .clinic import write_schema
from .ward import ROOT, write_ward_schema

EXAMPLES = ("diabetes", "heart", "eicu", "mimic-meds")


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    return Schema.load(write_ward_schema(tmp_path_factory.mktemp("ward")))


@pytest.fixture(scope="module")
def clinics(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    return Schema.load(write_schema(tmp_path_factory.mktemp("clinic")))


def invent(schema: Schema, patients: int, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Patients without any sense: all combinations, also those that no table could give."""
    random = np.random.default_rng(seed)
    features = np.zeros((patients, schema.width), np.uint8)
    for group in schema.groups:
        width = group.stop - group.start
        if group.kind == "binary":
            features[:, group.start : group.stop] = random.random((patients, width)) < random.random()
        else:
            features[np.arange(patients), group.start + random.integers(0, width, patients)] = 1
    return features, random.integers(0, len(schema.label.values), patients)


def read_back(folder: Path) -> tuple[Schema, npt.NDArray[np.uint8], npt.NDArray[np.int64], list[int]]:
    """Import a written dataset by the schema that it carries; patients in the order of their numbers."""
    schema = Schema.load(folder / SCHEMA_FILE)
    told = [fault.code for fault in check_folder(schema, folder).faults]
    assert told == ["missing-file"] * len(schema.tables) + ["not-imported"]
    report = import_meds(folder, schema, folder.with_suffix(".tables"), labels=folder / "labels")
    assert report.left_out == {}
    patients = load_patients(schema, folder.with_suffix(".tables"))
    numbers = [int(patient) for patient in patients.patient_ids]
    order = np.argsort(numbers)
    return schema, patients.features[order], patients.labels[order], sorted(numbers)


def assert_same_again(schema: Schema, patients: int, seed: int, folder: Path) -> None:
    features, labels = invent(schema, patients, seed)
    numbers = np.cumsum(np.random.default_rng(seed).integers(1, 1000, patients))
    # Some numbers as near to the ends of their bins as a generator's can be.
    within = np.random.default_rng(seed).choice([2.0**-33, 0.3, 0.7, 1 - 2.0**-33], (patients, len(schema.fields)))
    with MedsWriter(folder, schema, {}) as writer:
        for start in range(0, patients, 7):
            part = slice(start, start + 7)
            writer.write(features[part], labels[part], numbers[part], within[part])
    read_by, same_features, same_labels, same_numbers = read_back(folder)
    assert (read_by.columns, read_by.titles, read_by.groups) == (schema.columns, schema.titles, schema.groups)
    assert np.array_equal(same_features, features)
    assert np.array_equal(same_labels, labels)
    assert same_numbers == numbers.tolist()


@pytest.mark.parametrize("name", EXAMPLES)
def test_any_patients_of_the_examples_come_back(name: str, tmp_path: Path) -> None:
    assert_same_again(Schema.load(ROOT / "examples" / name / "schema.toml"), 40, 1, tmp_path / "meds")


@pytest.mark.parametrize("seed", range(4))
def test_any_patients_of_the_clinic_and_the_ward_come_back(
    seed: int, clinics: Schema, ward: Schema, tmp_path: Path
) -> None:
    for number, schema in enumerate((clinics, ward, written_schema(clinics))):
        assert_same_again(schema, 1 + 5 * seed, seed, tmp_path / str(number) / "meds")


def test_real_patients_come_back(diabetes: Schema, tmp_path: Path) -> None:
    patients = load_patients(diabetes, ROOT / "examples" / "diabetes" / "test.parquet").select(np.arange(500))
    with MedsWriter(tmp_path / "meds", diabetes, {}) as writer:
        writer.write(patients.features[:], patients.labels, np.arange(500))
    _, features, labels, _ = read_back(tmp_path / "meds")
    assert np.array_equal(features, patients.features[:])
    assert np.array_equal(labels, patients.labels)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_schema_of_what_is_written_is_written_as_itself(name: str) -> None:
    written = written_schema(Schema.load(ROOT / "examples" / name / "schema.toml"))
    assert written_schema(written) == written


def write_some(folder: Path, schema: Schema, patients: int = 20) -> Path:
    features, labels = invent(schema, patients, 3)
    half = patients // 2
    with MedsWriter(folder, schema, {"synclave.plan": "abc"}) as writer:
        writer.write(features[:half], labels[:half], np.arange(half))
        writer.write(features[:0], labels[:0], np.arange(0))
        writer.write(features[half:], labels[half:], np.arange(half, patients))
    return folder


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_is_valid_by_the_standards_own_package(name: str, tmp_path: Path) -> None:
    meds = pytest.importorskip("meds")
    folder = write_some(tmp_path / "meds", Schema.load(ROOT / "examples" / name / "schema.toml"))
    used: set[str] = set()
    for file in sorted((folder / meds.data_subdirectory).rglob("*.parquet")):
        meds.DataSchema.validate(pq.read_table(file))
        used |= set(pq.read_table(file)["code"].to_pylist())
    for file in sorted((folder / "labels").rglob("*.parquet")):
        meds.LabelSchema.validate(pq.read_table(file))
    meds.SubjectSplitSchema.validate(pq.read_table(folder / meds.subject_splits_filepath))
    codes = pq.read_table(folder / meds.code_metadata_filepath)
    meds.CodeMetadataSchema.validate(codes)
    assert used <= set(codes["code"].to_pylist())
    assert len(set(codes["code"].to_pylist())) == codes.num_rows
    meds.DatasetMetadataSchema.validate(json.loads((folder / meds.dataset_metadata_filepath).read_text("utf-8")))


def test_codes_are_the_hospitals_where_a_column_is_one_of_them(ward: Schema) -> None:
    codes = dict(zip(ward.columns, column_codes(ward), strict=True))
    assert codes["gender:F"] == "GENDER//F"
    assert codes["gender:missing"] == "GENDER//missing"
    assert codes["diagnosis:49"] == "diagnosis//49"  # ICD 049 would be another disease
    assert codes["potassium:[3.5,5.1)"] == codes["potassium:[5.1,9]"] == "LAB//50971//mEq/L"
    assert codes["potassium:missing"] is None
    assert codes["age:18..39"] == "age"


def with_field(ward: Schema, **changes: Any) -> dict[str, Any]:
    """Codes of the columns when the field potassium is changed and its old self stands beside it."""
    document = ward.model_dump(mode="json")
    document["fields"].append({**document["fields"][-1], "name": "again", **changes})
    schema = Schema.model_validate(document)
    return dict(zip(schema.columns, column_codes(schema), strict=True))


def test_one_code_never_stands_for_two_fields(ward: Schema) -> None:
    for code in ("LAB//50971//mEq/L", "LAB//*", "LAB//50971//*"):
        codes = with_field(ward, code=code)
        assert codes["potassium:[5.1,9]"] == "potassium"
        assert codes["again:[5.1,9]"] == "again"
    assert with_field(ward, code="LAB//50912//mg/dL")["again:[5.1,9]"] == "LAB//50912//mg/dL"
    assert with_field(ward, code="LAB//50912//mg/dL", combine="sum")["again:[5.1,9]"] == "again"


def test_codes_are_explained_and_roll_ups_are_parents(ward: Schema, tmp_path: Path) -> None:
    folder = write_some(tmp_path / "meds", ward)
    rows = {row["code"]: row for row in pq.read_table(folder / "metadata" / "codes.parquet").to_pylist()}
    assert rows["diagnosis//108"]["description"] == "diagnosis: Congestive heart failure; nonhypertensive"
    assert rows["LAB//50971//mEq/L"]["description"] == "potassium (mEq/L)"
    assert rows["ICD9CM//4280"]["parent_codes"] == ["diagnosis//108"]
    assert json.loads((folder / NOTES_FILE).read_text("utf-8")) == {"synclave.plan": "abc"}


def test_events_are_static_and_labels_say_it_in_every_way(ward: Schema, tmp_path: Path) -> None:
    folder = write_some(tmp_path / "meds", ward)
    events = pq.read_table(folder / "data" / "train" / "2.parquet")
    assert events["time"].null_count == events.num_rows > 0
    labels = pq.read_table(folder / "labels" / "returned" / "2.parquet").to_pylist()
    assert len(labels) == 10
    for row in labels:
        yes = row["boolean_value"]
        assert (row["categorical_value"], row["integer_value"]) == (("yes", 1) if yes else ("no", 0))


def test_the_same_patients_give_the_same_bytes(ward: Schema, tmp_path: Path) -> None:
    one, two = (write_some(tmp_path / name, ward) for name in ("one", "two"))
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) == 3 + 3 + 5
    assert files == sorted(path.relative_to(two) for path in two.rglob("*") if path.is_file())
    for file in files:
        assert (one / file).read_bytes() == (two / file).read_bytes()


def test_a_patient_of_whom_there_is_no_event(ward: Schema, tmp_path: Path) -> None:
    document = ward.model_dump(mode="json")
    document["fields"] = [field for field in document["fields"] if field["name"] == "diagnosis"]
    schema = Schema.model_validate(document)
    features = np.zeros((3, schema.width), np.uint8)
    features[1, 5] = 1
    with MedsWriter(tmp_path / "meds", schema, {}) as writer:
        writer.write(features, np.array([0, 1, 1]), np.array([7, 8, 9]))
    _, same, labels, numbers = read_back(tmp_path / "meds")
    assert np.array_equal(same, features)
    assert (labels.tolist(), numbers) == ([0, 1, 1], [7, 8, 9])


@pytest.mark.parametrize("fault", ["shape", "two", "label", "number", "twice", "group", "elsewhere"])
def test_what_does_not_fit_leaves_no_dataset(fault: str, ward: Schema, tmp_path: Path) -> None:
    features, labels = invent(ward, 4, 1)
    numbers = np.arange(4)
    if fault == "shape":
        features = features[:, 1:]
    elif fault == "two":
        features = features * 2
    elif fault == "label":
        labels[2] = 2
    elif fault == "number":
        numbers = np.array([0, 2, 1, 3])
    elif fault == "group":
        features[1, ward.groups[0].start : ward.groups[0].stop] = 0
    with pytest.raises(RuntimeError if fault == "elsewhere" else DataError):  # noqa: SIM117, PT012
        with MedsWriter(tmp_path / "meds", ward, {}) as writer:
            writer.write(features, labels, numbers)
            if fault == "twice":
                writer.write(features, labels, numbers)
            if fault == "elsewhere":
                raise RuntimeError("the network failed")
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(ward: Schema, tmp_path: Path) -> None:
    (tmp_path / "meds").write_text("mine")
    with pytest.raises(ConfigurationError, match="does not exist yet"), MedsWriter(tmp_path / "meds", ward, {}):
        pass
    assert (tmp_path / "meds").read_text() == "mine"


def test_bins_that_float32_cannot_tell_apart_are_refused_before_anything_is_written(
    ward: Schema, tmp_path: Path
) -> None:
    document = ward.model_dump(mode="json")
    document["fields"][-1] |= {"minimum": "1", "edges": ["1.00000001"], "maximum": "1.00000002"}
    with pytest.raises(SchemaError, match="bins of potassium"):
        MedsWriter(tmp_path / "meds", Schema.model_validate(document), {})
    assert not list(tmp_path.iterdir())
