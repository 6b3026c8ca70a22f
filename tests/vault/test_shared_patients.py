"""The steward's list of patients who are at other sites too: what is taken, what is refused, and what it does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synclave_client.settings import SiteSettings
from synclave_client.vault import notes_workload, series_workload
from synclave_client.vault.loading import load_workload
from synclave_client.vault.notes_workload import NotesWorkload
from synclave_client.vault.series_workload import SeriesWorkload
from synclave_client.vault.shared_patients import MOST_SITES, read_shares, with_shares
from synclave_client.vault.workload import PatientWorkload
from synclave_shared.errors import DataError
from tests.models.small import small_dataset
from tests.models.small_notes import notes_dataset, notes_schema
from tests.models.small_series import series_dataset, series_schema
from tests.vault.coordinator import make_settings
from tests.vault.toy import write_hospital

IDS = ["P1", "P2", "P3"]


def listed(folder: Path, text: str) -> Path:
    path = folder / "shared.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_listed_patients_have_one_over_their_number_of_sites_and_others_all(tmp_path: Path) -> None:
    path = listed(tmp_path, f'\ufeffpatient,sites\nP3,2\n\n"P1",{MOST_SITES}\n')
    assert read_shares(path, IDS).tolist() == [1 / MOST_SITES, 1.0, 0.5]
    assert read_shares(listed(tmp_path, "patient,sites\n"), IDS).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line that reads patient,sites"),
        ("id,m\nP1,2\n", "first line that reads patient,sites"),
        ("patient,sites\nP1,2\nP9,2\n", "identifier that is not there, in line 3"),
        ("patient,sites\nP1,2\nP2,3\nP1,2\n", "patient of line 2 again in line 4"),
        ("patient,sites\nP1\n", "1 in line 2"),
        ("patient,sites\nP1,2,x\n", "3 in line 2"),
        ('patient,sites\n"P1,2\n', "CSV file"),
        *(
            (f"patient,sites\nP1,{sites}\n", "another value in line 2")
            for sites in ("1", "0", "-2", "2.5", "", " 2", "17")
        ),
        ("patient,sites\nP1,\u0662\n", "another value in line 2"),
        (f"patient,sites\nP1,{'9' * 5000}\n", "another value in line 2"),
    ],
)
def test_a_list_that_does_not_fit_is_refused_and_names_nobody(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_shares(listed(tmp_path, text), IDS)
    assert not any(patient in str(caught.value) for patient in [*IDS, "P9"])


def test_a_list_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="FileNotFoundError"):
        read_shares(tmp_path / "shared.csv", IDS)
    (tmp_path / "shared.csv").write_bytes(b"patient,sites\nP\xff,2\n")
    with pytest.raises(DataError, match="UnicodeDecodeError"):
        read_shares(tmp_path / "shared.csv", IDS)


def test_without_a_list_a_data_set_is_what_it_was() -> None:
    dataset = small_dataset(3)
    assert with_shares(dataset, None) is dataset


def test_a_vault_reads_the_list_that_its_settings_name(tmp_path: Path) -> None:
    write_hospital(tmp_path)
    listed(tmp_path, "patient,sites\nP7,2\n")
    (tmp_path / "site.toml").write_text(make_settings(tmp_path, shared_patients=tmp_path / "shared.csv").to_toml())
    settings = SiteSettings.load(tmp_path / "site.toml")
    workload = load_workload(settings)
    assert isinstance(workload, PatientWorkload)
    dataset = workload._dataset
    assert dataset.shares is not None
    assert {dataset.patient_ids[number]: dataset.shares[number] for number in np.flatnonzero(dataset.shares < 1)} == {
        "P7": 0.5
    }
    listed(tmp_path, "patient,sites\nnobody,2\n")
    with pytest.raises(DataError, match="line 2"):
        load_workload(settings)


@pytest.mark.parametrize(
    ("module", "kind", "schema", "made"),
    [
        (series_workload, SeriesWorkload, series_schema, series_dataset),
        (notes_workload, NotesWorkload, notes_schema, notes_dataset),
    ],
)
def test_so_do_vaults_of_other_modalities(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    kind: Any,
    schema: Callable[[], Any],
    made: Callable[[int], Any],
) -> None:
    """What reads schema and data stands in for files of theirs."""
    reader = "load_series" if kind is SeriesWorkload else "load_notes"
    monkeypatch.setattr(module, reader, lambda *_: made(4))
    monkeypatch.setattr(module, "_rehearsed", lambda *_: None)
    monkeypatch.setattr(module, "report_self_test", lambda *_: None)
    monkeypatch.setattr(f"{module.__name__}.{type(schema()).__name__}.load", lambda _: schema())
    settings = make_settings(tmp_path, shared_patients=listed(tmp_path, "patient,sites\np2,3\n"))
    assert kind.load(settings)._dataset.shares.tolist() == [1.0, 1.0, 1 / 3, 1.0]
