"""Build the data under examples/ from a folder with the public data sets.

    python examples/make_examples.py --source FOLDER [--only NAME] [--eicu-out FOLDER] [--sepsis-out FOLDER]

FOLDER holds ``diabetes-130/``, ``code-tables/``, ``uci-heart/``, ``sepsis-2019/`` and ``eicu-demo/``; sources and
licences are named in each example's ATTRIBUTION.md. Everything is deterministic: the same source gives the same rows.
The eICU demo's licence (ODbL) asks that derived databases stay under it, so its site folders are written where
``--eicu-out`` says and are not part of this repository.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
TEST_SHARE = 0.2

PAYER_SITES = {
    "MC": "medicare",
    "MD": "public-or-self-pay",
    "CH": "public-or-self-pay",
    "SP": "public-or-self-pay",
    "FR": "public-or-self-pay",
    "DM": "public-or-self-pay",
    "SI": "public-or-self-pay",
    "WC": "public-or-self-pay",
    None: "payer-not-recorded",
}
"""Payer of a patient's first encounter -> site; every other payer code is a private insurer."""
PRIVATE_SITE = "private-insurance"

SHORTENED_WITHOUT_ZEROS = "250"
"""The one ICD-9-CM category the diabetes data keeps in full: its codes lost only their trailing zeros."""


def write_pairs(path: Path, header: str, pairs: Iterable[tuple[str, str]]) -> None:
    """Write a two-column vocabulary or mapping file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["code", header])
        writer.writerows(pairs)


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a small, deterministic Parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", compression_level=19, use_dictionary=True, write_page_checksum=True)


def stem_targets(codes: dict[str, str]) -> dict[str, str]:
    """For each shortened ICD-9-CM code, the CCS category it stands for, by a public rule.

    A shortened code stands for the category of the full codes under it; if they differ, for the category of most of
    them; on a tie for the category whose codes come last, where ICD-9-CM puts "other" and "unspecified". Category 250
    is the exception: there the code is filled up with zeros, because the diabetes data records it in full and lost
    only trailing zeros (250 is 250.00).
    """
    under: dict[str, Counter[str]] = defaultdict(Counter)
    last: dict[tuple[str, str], str] = {}
    for code, target in sorted(codes.items()):
        for length in range(4 if code.startswith("E") else 3, len(code)):
            under[code[:length]][target] += 1
            last[code[:length], target] = code
    stems = {}
    for stem, counts in under.items():
        if stem in codes:
            continue
        filled = stem.ljust(5, "0")
        if stem.startswith(SHORTENED_WITHOUT_ZEROS) and filled in codes:
            stems[stem] = codes[filled]
        else:
            stems[stem] = max(counts, key=lambda target: (counts[target], last[stem, target]))
    return stems


def make_codes(source: Path) -> None:
    """Write examples/codes: the CCS categories and the mapping of ICD-9-CM to them."""
    table = pq.read_table(source / "code-tables" / "ccs_icd9_2015.parquet")
    codes = dict(zip(table["icd9"].to_pylist(), map(str, table["ccs_id"].to_pylist()), strict=True))
    titles = dict(zip(map(str, table["ccs_id"].to_pylist()), table["ccs_name"].to_pylist(), strict=True))
    titles = {code: title.replace("`", "'").replace("Cut/pierceb", "Cut/pierce") for code, title in titles.items()}
    write_pairs(HERE / "codes" / "ccs.csv", "title", sorted(titles.items(), key=lambda item: int(item[0])))
    write_pairs(HERE / "codes" / "icd9_to_ccs.csv", "target", sorted({**stem_targets(codes), **codes}.items()))


def held_out(patient: object) -> bool:
    """Whether a patient belongs to the common test set: by a hash of the identifier, so that it never changes."""
    digest = hashlib.sha256(f"synclave-example:{patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < TEST_SHARE * 2**64


def first_payers(table: pa.Table) -> dict[int, str | None]:
    """Payer code of each patient's first encounter."""
    ordered = table.sort_by([("encounter_id", "descending")])
    return dict(zip(ordered["patient_nbr"].to_pylist(), ordered["payer_code"].to_pylist(), strict=True))


def write_held_out(test: pa.Table, site_of: dict[int, str], folder: Path) -> None:
    """Write the test patients that each site would have had, one file a site."""
    sites = np.array([site_of[patient] for patient in test["patient_nbr"].to_pylist()])
    for name in sorted(set(sites)):
        write_parquet(test.filter(pa.array(sites == name)), folder / f"{name}.parquet")


def spaced(name: str) -> str:
    """``InfectiousDiseases`` -> ``Infectious Diseases``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", re.sub(r"(?<=[a-z])(and|within)(?=[A-Z])", r" \1 ", name))


def make_diabetes(source: Path) -> None:
    """Write examples/diabetes: encounters of four sites and of a test set, its parts by site, and the vocabularies."""
    folder = HERE / "diabetes"
    table = pq.read_table(source / "diabetes-130" / "encounters.parquet").replace_schema_metadata(None)
    payers = first_payers(table)
    site_of = {patient: PAYER_SITES.get(payer, PRIVATE_SITE) for patient, payer in payers.items()}
    place = {patient: "test" if held_out(patient) else site for patient, site in site_of.items()}
    places = np.array([place[patient] for patient in table["patient_nbr"].to_pylist()])
    for name in sorted(set(places)):
        path = folder / "test.parquet" if name == "test" else folder / "sites" / name / "encounters.parquet"
        write_parquet(table.filter(pa.array(places == name)).sort_by("encounter_id"), path)
        patients = len({patient for patient, where in place.items() if where == name})
        print(f"diabetes {name}: {np.sum(places == name)} encounters, {patients} patients")
    write_held_out(pq.read_table(folder / "test.parquet"), site_of, folder / "held-out")
    specialties = sorted(value for value in pc.unique(table["medical_specialty"]).to_pylist() if value)
    write_pairs(folder / "specialties.csv", "title", [(value, spaced(value)) for value in specialties])
    rows = (source / "diabetes-130" / "IDs_mapping.csv").read_text(encoding="utf-8").splitlines()
    section = ""
    lists: dict[str, list[tuple[str, str]]] = {}
    for row in csv.reader(rows):
        if len(row) == 2 and row[0].endswith("_id"):
            section = row[0]
            lists[section] = []
        elif len(row) == 2 and row[0]:
            title = " ".join(row[1].split()).removesuffix(" .")
            lists[section].append((row[0], "not recorded (NULL)" if title == "NULL" else title))
    for section, pairs in lists.items():
        write_pairs(
            folder / f"{section.removesuffix('_id')}.csv", "title", sorted(pairs, key=lambda pair: int(pair[0]))
        )


def make_heart(source: Path) -> None:
    """Write examples/heart: one folder per hospital, as CSV."""
    table = pa.csv.read_csv(
        source / "uci-heart" / "heart.csv",
        convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(HEART_COLUMNS, pa.string())),
    )
    for hospital in sorted(pc.unique(table["hospital"]).to_pylist()):
        rows = table.filter(pc.equal(table["hospital"], hospital))
        path = HERE / "heart" / "sites" / hospital.replace("_", "-") / "patients.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [",".join(["patient", *HEART_COLUMNS])]
        lines += [
            ",".join([f"{row['hospital']}-{row['row']}", *(row[name] or "" for name in HEART_COLUMNS)])
            for row in rows.to_pylist()
        ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"heart {hospital}: {rows.num_rows} patients")


HEART_COLUMNS = tuple(
    "age sex cp trestbps chol fbs restecg thalach exang oldpeak slope ca thal num".split()  # noqa: SIM905
)


SEPSIS_PLACES = {"sites": 1500, "held-out": 1000}
"""Patients of each hospital, in the order of a hash of the identifier: natural prevalence, and never another choice."""
SEPSIS_ALL = {"held-out": 3500, "sites": 11_500}
"""For a folder of nearly all patients, made by --sepsis-out."""
SEPSIS_HOURS = 24
SEPSIS_STATIC = ("Age", "Gender", "Unit1", "Unit2", "HospAdmTime")
SEPSIS_LEFT_OUT = ("hospital", "SepsisLabel", *SEPSIS_STATIC)


def make_sepsis(source: Path, out: Path | None = None, places: Mapping[str, int] | None = None) -> None:
    """Write examples/sepsis: the first day in intensive care of some patients of two hospitals.

    ``out`` and ``places`` are another folder, and how many of each hospital's patients go where.

    Patients have a row of what does not change in ``patients``, with ``SepsisLabel`` 1 if it is 1 in any of their
    hours; and in ``hours`` the rows of the first 24 hours from their first row.
    """
    out, places = out or HERE / "sepsis", places or SEPSIS_PLACES
    for hospital in ("A", "B"):
        table = pq.read_table(source / "sepsis-2019" / f"hospital_{hospital}.parquet").replace_schema_metadata(None)
        table = table.sort_by([("patient_id", "ascending"), ("ICULOS", "ascending")])
        owners = table["patient_id"].to_numpy()
        everyone, first, patient = np.unique(owners, return_index=True, return_inverse=True)
        septic = np.zeros(len(everyone), dtype=np.int8)
        np.maximum.at(septic, patient, table["SepsisLabel"].to_numpy())
        patients = table.take(pa.array(first)).select(["patient_id", *SEPSIS_STATIC])
        patients = patients.append_column("SepsisLabel", pa.array(septic))
        hour = table["ICULOS"].to_numpy()
        early = hour - hour[first][patient] < SEPSIS_HOURS
        hours = table.select([name for name in table.column_names if name not in SEPSIS_LEFT_OUT])
        order = np.argsort([hashlib.sha256(f"synclave-sepsis:{one}".encode()).hexdigest() for one in everyone.tolist()])
        start = 0
        for place, count in places.items():
            chosen = np.zeros(len(everyone), dtype=bool)
            chosen[order[start : start + count]] = True
            start += count
            folder = out / place / f"hospital-{hospital.lower()}"
            write_parquet(patients.filter(pa.array(chosen)), folder / "patients.parquet")
            write_parquet(hours.filter(pa.array(early & chosen[patient])), folder / "hours.parquet")
            print(f"sepsis {place} {hospital}: {chosen.sum()} patients, {septic[chosen].sum()} septic")


def make_eicu(source: Path, out: Path) -> None:
    """Write one folder per federation node from a copy of the eICU demo: four tables, the hours and the licence.

    A patient seen in several nodes goes with all stays to the node of the lowest stay number, so that sites share no
    patient.
    """
    tables = source / "eicu-demo" / "tables"
    patients = pq.read_table(tables / "patient.parquet").replace_schema_metadata(None).sort_by("patientunitstayid")
    node_of: dict[str, str] = {}
    for patient, node in zip(patients["uniquepid"].to_pylist(), patients["node"].to_pylist(), strict=True):
        node_of.setdefault(patient, node)
    stays = dict(
        zip(patients["patientunitstayid"].to_pylist(), map(node_of.get, patients["uniquepid"].to_pylist()), strict=True)
    )
    files = {name: tables / f"{name}.parquet" for name in ("patient", "diagnosis", "pastHistory", "treatment")}
    for name, path in {**files, "hourly": source / "eicu-demo" / "hourly" / "hourly.parquet"}.items():
        table = pq.read_table(path).replace_schema_metadata(None)
        # The table of hours has another name for the stay.
        table = table.rename_columns(["patientunitstayid" if old == "stay_id" else old for old in table.column_names])
        nodes = np.array([stays.get(stay) for stay in table["patientunitstayid"].to_pylist()])
        for node in sorted(set(stays.values())):
            site = node.lower().replace("_", "-")
            write_parquet(table.filter(pa.array(nodes == node)), out / site / f"{name}.parquet")
    for node in sorted(set(stays.values())):
        licence = out / node.lower().replace("_", "-") / "LICENSE-ODbL.txt"
        licence.write_bytes((source / "eicu-demo" / "LICENSE-ODbL.txt").read_bytes())
    print(f"eicu: {len(node_of)} patients in {len(set(stays.values()))} sites under {out}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder with the public data sets")
    parser.add_argument(
        "--only", choices=["codes", "diabetes", "heart", "sepsis", "eicu"], help="make this example alone"
    )
    parser.add_argument("--eicu-out", type=Path, help="where to write the site folders of the eICU demo")
    parser.add_argument("--sepsis-out", type=Path, help="where to write a folder like examples/sepsis of all patients")
    options = parser.parse_args(arguments)
    shipped = {"codes": make_codes, "diabetes": make_diabetes, "heart": make_heart, "sepsis": make_sepsis}
    for name, make in shipped.items():
        if options.only in (None, name):
            make(options.source)
    if options.sepsis_out:
        make_sepsis(options.source, options.sepsis_out, SEPSIS_ALL)
        (options.sepsis_out / "schema.toml").write_bytes((HERE / "sepsis" / "schema.toml").read_bytes())
    if options.eicu_out and options.only in (None, "eicu"):
        make_eicu(options.source, options.eicu_out)
    elif options.only == "eicu":
        parser.error("eicu needs --eicu-out")


if __name__ == "__main__":
    main()
