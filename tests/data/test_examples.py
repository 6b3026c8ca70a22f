"""The shipped examples: patients of one site only, licences beside the data, and the script that makes them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synclave_shared.data.meds.importing import import_meds
from synclave_shared.data.modality import load_schema
from synclave_shared.data.schema import Schema
from synclave_shared.data.series.reading import read_series
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.data.tables import check_folder, load_patients, read_patients

from .ward import event, write_events


@pytest.fixture(scope="module")
def script(examples: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_examples", examples / "make_examples.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_patient_is_in_two_places(diabetes: Schema, examples: Path) -> None:
    folders = [*sorted((examples / "diabetes" / "sites").iterdir()), examples / "diabetes" / "test.parquet"]
    assert len(folders) == 5
    seen: set[str] = set()
    sizes = []
    for folder in folders:
        dataset, report = read_patients(diabetes, folder)
        assert dataset is not None, report.faults
        assert min(report.label_counts.values()) > 300
        assert not seen & set(dataset.patient_ids)
        seen |= set(dataset.patient_ids)
        sizes.append(len(dataset))
    assert 0.18 < sizes[-1] / len(seen) < 0.22


def test_the_held_out_patients_of_the_sites_are_the_test_patients(diabetes: Schema, examples: Path) -> None:
    whole, _ = read_patients(diabetes, examples / "diabetes" / "test.parquet")
    assert whole is not None
    found = []
    for path in sorted((examples / "diabetes" / "held-out").iterdir()):
        assert (examples / "diabetes" / "sites" / path.stem).is_dir()
        part, _ = read_patients(diabetes, path)
        assert part is not None
        found += part.patient_ids
    assert sorted(found) == sorted(whole.patient_ids)


def test_the_diabetes_schema_is_several_hundred_columns(diabetes: Schema) -> None:
    assert 300 < diabetes.width < 1000
    assert "diagnosis:108" in diabetes.columns
    title = diabetes.titles[diabetes.columns.index("diagnosis:108")]
    assert title == "Diagnosis: Congestive heart failure; nonhypertensive"


def test_heart_sites_fit_their_schema(examples: Path) -> None:
    schema = Schema.load(examples / "heart" / "schema.toml")
    for site in sorted((examples / "heart" / "sites").iterdir()):
        assert check_folder(schema, site).ok


def test_sepsis_is_two_hospitals_at_natural_prevalence(examples: Path) -> None:
    schema = load_schema(examples / "sepsis" / "schema.toml")
    assert isinstance(schema, SeriesSchema)
    septic = {}
    seen: set[str] = set()
    for place in ("sites", "held-out"):
        for site in sorted((examples / "sepsis" / place).iterdir()):
            dataset, report = read_series(schema, site)
            assert dataset is not None, report.faults
            assert not seen & set(dataset.patient_ids)
            seen |= set(dataset.patient_ids)
            assert len(dataset) == {"sites": 1500, "held-out": 1000}[place]
            septic[place, site.name] = report.label_counts["yes"] / report.patients
            shares = {channel.name: channel.observed / channel.steps for channel in report.channels}
            assert shares["heart_rate"] > 0.8
            assert (shares["etco2"] == 0) == (site.name == "hospital-a")
            assert 0.15 < dataset.observed.mean() < 0.25
    # Of all published patients 8.8 and 5.7 in a hundred.
    assert {place: round(share, 2) for place, share in septic.items()} == {
        ("sites", "hospital-a"): 0.08,
        ("sites", "hospital-b"): 0.06,
        ("held-out", "hospital-a"): 0.09,
        ("held-out", "hospital-b"): 0.06,
    }


def test_sepsis_is_small(examples: Path) -> None:
    assert sum(file.stat().st_size for file in (examples / "sepsis").rglob("*")) < 1.5e6


def test_the_script_cuts_the_first_day(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "HERE", tmp_path / "out")
    monkeypatch.setattr(script, "SEPSIS_PLACES", {"sites": 2, "held-out": 1})
    (tmp_path / "sepsis-2019").mkdir()
    rows = [(patient, hour) for patient in (1, 2, 3) for hour in range(2, 30)]
    columns = {
        "hospital": ["A"] * len(rows),
        "patient_id": [patient for patient, _ in rows],
        "HR": [float(hour) for _, hour in rows],
        **dict.fromkeys(script.SEPSIS_STATIC, [1.0] * len(rows)),
        "ICULOS": [hour for _, hour in rows],
        "SepsisLabel": [int(patient == 2 and hour == 29) for patient, hour in rows],
    }
    for hospital in "AB":
        pq.write_table(pa.table(columns), tmp_path / "sepsis-2019" / f"hospital_{hospital}.parquet")
    script.make_sepsis(tmp_path)
    found: dict[int, int] = {}
    for place, count in (("sites", 2), ("held-out", 1)):
        folder = tmp_path / "out" / "sepsis" / place / "hospital-a"
        patients, hours = (pq.read_table(folder / f"{name}.parquet").to_pydict() for name in ("patients", "hours"))
        found |= dict(zip(patients["patient_id"], patients["SepsisLabel"], strict=True))
        assert hours["HR"] == [float(hour) for hour in range(2, 26)] * count
    # An hour after the first day still tells the label.
    assert found == {1: 0, 2: 1, 3: 0}


def test_icu_2012_fits_its_schema(examples: Path, tmp_path: Path) -> None:
    schema = load_schema(examples / "icu-2012" / "schema.toml")
    assert isinstance(schema, SeriesSchema)
    stays = {"RecordID": [1, 2], "Age": [90, 15], "Gender": [-1, 1], "In-hospital_death": [0, 1]}
    events = {
        "RecordID": [1, 1, 1, 1, 1, 2],
        "minute": [0, 59, 60, 61, 2880, 5],
        "Parameter": ["Urine", "Urine", "Weight", "pH", "HR", "HR"],
        "Value": [100.0, 50.0, -1.0, 735.0, 80.0, 70.0],
    }
    for name, columns in (("stays", stays), ("events", events)):
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    dataset, report = read_series(schema, tmp_path)
    assert dataset is not None, report.faults
    assert dataset.observed.sum(axis=(1, 2)).tolist() == [1, 1]
    urine = [channel.name for channel in schema.channels].index("urine")
    assert schema.channels[urine].unscaled(dataset.values[0, :1, urine]) == pytest.approx([150], abs=1e-3)
    assert {channel.name for channel in report.channels if channel.dropped} == {"ph"}
    assert ("after-horizon", 1) in {(notice.code, notice.count) for notice in report.notices}


@pytest.mark.parametrize(
    ("folder", "licence"),
    [
        ("diabetes", "CC BY 4.0"),
        ("heart", "CC BY 4.0"),
        ("eicu", "ODbL"),
        ("mimic-meds", "ODbL"),
        ("sepsis", "CC BY 4.0"),
        ("icu-2012", "ODC-By"),
        ("codes", "public domain"),
    ],
)
def test_source_and_licence_stand_beside_the_data(examples: Path, folder: str, licence: str) -> None:
    text = (examples / folder / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert licence in text
    assert "https://" in text


def test_shortened_codes_follow_the_public_rule(script: ModuleType) -> None:
    codes = {
        "4010": "99",
        "4011": "98",
        "4019": "98",
        "57142": "6",
        "5719": "151",
        "25000": "49",
        "25002": "49",
        "25060": "50",
    }
    stems = script.stem_targets({**codes, "25070": "50", "25080": "50", "E8880": "2603", "E8889": "2603"})
    assert stems["401"] == "98"  # most codes
    assert stems["571"] == "151"  # a tie: where "unspecified" stands
    assert stems["250"] == "49"  # trailing zeros only
    assert stems["2506"] == "50"
    assert stems["E888"] == "2603"
    assert "25000" not in stems


def test_the_shipped_mapping_keeps_every_full_code(examples: Path) -> None:
    lines = (examples / "codes" / "icd9_to_ccs.csv").read_text(encoding="utf-8").splitlines()
    mapping = dict(line.split(",") for line in lines[1:])
    assert len(mapping) == len(lines) - 1
    assert (mapping["4280"], mapping["428"], mapping["0389"], mapping["038"]) == ("108", "108", "2", "2")


def make_eicu_source(folder: Path, examples: Path) -> None:
    tables = folder / "eicu-demo" / "tables"
    tables.mkdir(parents=True)
    (folder / "eicu-demo" / "LICENSE-ODbL.txt").write_text("ODbL", encoding="utf-8")
    patient = {
        "uniquepid": ["001-1", "001-1", "001-2", "002-1"],
        "patientunitstayid": [10, 11, 20, 30],
        "node": ["South_large", "Northeast", "Northeast", "Northeast"],
        "hospitaldischargestatus": ["Alive", "Expired", None, "Alive"],
        "age": ["70", "71", "40", "> 89"],
        "gender": ["Female", "Female", "Male", None],
        "ethnicity": ["Asian", "Asian", None, "Elvish"],
        "unittype": ["MICU", "SICU", "MICU", "MICU"],
        "unitadmitsource": ["Floor", None, "Floor", "Floor"],
    }
    diagnosis = {"patientunitstayid": [10, 30], "icd9code": ["518.81, J96.00", "E980.2, E11.9"]}
    prefix = "notes/Progress Notes/Past History/"
    history = {
        "patientunitstayid": [11, 30],
        "pasthistorypath": [
            f"{prefix}Organ Systems/Pulmonary/Asthma/asthma",
            f"{prefix}Past History Obtain Options/Performed",
        ],
    }
    treatment = {
        "patientunitstayid": [10, 30],
        "treatmentstring": ["renal|dialysis|hemodialysis", "renal|new therapy|x"],
    }
    hours = folder / "eicu-demo" / "hourly"
    hours.mkdir()
    schema = load_schema(examples / "eicu" / "series.toml")
    assert isinstance(schema, SeriesSchema)
    measured = dict.fromkeys((channel.column for channel in schema.channels), pa.nulls(4, pa.float64()))
    hourly = {**measured, "stay_id": [10, 10, 11, 30], "hour": [0, 5, 0, 30], "hr": [80.0, 90.0, 70.0, 60.0]}
    pq.write_table(pa.table(hourly), hours / "hourly.parquet")
    for name, columns in (
        ("patient", patient),
        ("diagnosis", diagnosis),
        ("pastHistory", history),
        ("treatment", treatment),
    ):
        pq.write_table(pa.table(columns), tables / f"{name}.parquet")


def test_eicu_sites_are_patient_disjoint_and_fit_the_schema(script: ModuleType, examples: Path, tmp_path: Path) -> None:
    make_eicu_source(tmp_path, examples)
    script.make_eicu(tmp_path, tmp_path / "sites")
    schema = Schema.load(examples / "eicu" / "schema.toml")
    south = load_patients(schema, tmp_path / "sites" / "south-large")
    assert south.patient_ids == ["001-1"]  # both stays, though the second was elsewhere
    assert south.labels.tolist() == [1]
    ones = {name for name, value in zip(schema.columns, south.features[:1][0], strict=True) if value}
    assert ones == {
        "age:70..74",
        "gender:Female",
        "ethnicity:Asian",
        "unit_stays:2",
        "unit_type:MICU",
        "unit_type:SICU",
        "admission_source:Floor",
        "diagnosis:131",
        "history:asthma",
        "treatment:renal|dialysis",
    }
    north, report = read_patients(schema, tmp_path / "sites" / "northeast")
    assert north is not None
    assert north.patient_ids == ["002-1"]
    assert [notice.count for notice in report.notices if notice.code == "left-out"] == [1]
    ones = {name for name, value in zip(schema.columns, north.features[:1][0], strict=True) if value}
    assert {"age:90", "gender:missing", "ethnicity:other", "diagnosis:2613", "treatment:other"} <= ones
    assert not {name for name in ones if name.startswith("history")}
    assert (tmp_path / "sites" / "northeast" / "LICENSE-ODbL.txt").is_file()


def test_the_first_stay_of_eicu_is_the_series(script: ModuleType, examples: Path, tmp_path: Path) -> None:
    make_eicu_source(tmp_path, examples)
    script.make_eicu(tmp_path, tmp_path / "sites")
    schema = load_schema(examples / "eicu" / "series.toml")
    assert isinstance(schema, SeriesSchema)
    south, report = read_series(schema, tmp_path / "sites" / "south-large")
    assert south is not None, report.faults
    assert south.patient_ids == ["001-1"]
    assert south.lengths.tolist() == [6]
    assert schema.channels[0].unscaled(south.values[0, [0, 5], 0]) == pytest.approx([80, 90], abs=1e-3)
    counts = {notice.code: notice.count for notice in report.notices if notice.file == "hourly.parquet"}
    assert counts == {"other-stay": 1}
    # What lies after the first day shows that the stay went on.
    north, report = read_series(schema, tmp_path / "sites" / "northeast")
    assert north is not None, report.faults
    assert north.lengths.tolist() == [24]
    assert not north.observed.any()


def test_mimic_as_meds_is_a_series_too(examples: Path, tmp_path: Path) -> None:
    schema = load_schema(examples / "mimic-meds" / "series.toml")
    assert isinstance(schema, SeriesSchema)
    events = [
        event(1, None, "GENDER//F"),
        event(1, "2100-01-01", "MEDS_BIRTH"),
        event(1, "2160-03-01T01:00:00", "LAB//50912//mg/dL", 1.1),
        event(1, "2160-03-01T02:00:00", "ICU_ADMISSION//MICU"),
        event(1, "2160-03-01T03:00:00", "FLUID_OUTPUT//226559//ml", 100),
        event(1, "2160-03-01T05:00:00", "FLUID_OUTPUT//226559//ml", 150),
        event(1, "2160-03-01T06:00:00", "LAB//50912//mg/dL", 1.3),
        event(1, "2160-03-01T11:00:00", "ICU_DISCHARGE//MICU"),
        event(1, "2160-03-02", "LAB//50912//mg/dL", 0.9),
    ]
    write_events(tmp_path / "meds" / "data" / "0.parquet", events)
    import_meds(tmp_path / "meds", schema, tmp_path / "tables")
    dataset, report = read_series(schema, tmp_path / "tables")
    assert dataset is not None, report.faults
    assert dataset.lengths.tolist() == [3]
    names = [channel.name for channel in schema.channels]
    seen = {(step, names[place]) for _, step, place in np.argwhere(dataset.observed).tolist()}
    assert seen == {(0, "urine"), (1, "creatinine")}
    assert {notice.code: notice.count for notice in report.notices} == {"before-start": 1, "after-end": 1}


def test_mimic_as_meds_fits_its_schema(examples: Path, tmp_path: Path) -> None:
    schema = Schema.load(examples / "mimic-meds" / "schema.toml")
    events = [
        event(1, None, "GENDER//F"),
        event(1, "2100-01-01", "MEDS_BIRTH"),
        event(1, "2160-03-01", "HOSPITAL_ADMISSION//EW EMER.//EMERGENCY ROOM"),
        event(1, "2160-03-01", "LAB//50912//mg/dL", 1.3),
        event(1, "2160-03-02", "LAB//50912//mg/dL", 0.9),
        event(1, "2160-03-02", "LAB//50971//mEq/L"),
        event(1, "2160-03-05", "DIAGNOSIS//ICD//9//4280"),
        event(1, "2160-03-05", "DIAGNOSIS//ICD//10//I509"),
        event(1, "2161-12-31", "MEDS_DEATH"),
    ]
    write_events(tmp_path / "meds" / "data" / "0.parquet", events)
    report = import_meds(tmp_path / "meds", schema, tmp_path / "tables")
    assert report.unread == {"DIAGNOSIS": 1}
    patients = load_patients(schema, tmp_path / "tables")
    assert {name for name, value in zip(schema.columns, patients.features[:1][0], strict=True) if value} == {
        "age:60..69",
        "gender:F",
        "admission:EW EMER.",
        "admissions:1",
        "diagnosis:108",
        "creatinine:[1.3,2)",
        "potassium:missing",
    }
    assert patients.labels.tolist() == [1]
