"""Whose budget it is: each data set's name is bound to its folder and to its patients, in the journal, for good.

A budget protects people, not a name. So with the first plan that a data set takes part in, the journal keeps a mark of
each of its patients: the first 16 bytes of HMAC-SHA-256 of the identifier, under a secret of this site. A data set
under another name that shares a mark is refused. Neither marks nor secret leave the state folder, and without the
secret a mark tells nothing about an identifier.

Whoever changes the identifiers, or makes a second site of the same patients, is not seen: that is the steward's word.
"""

from __future__ import annotations

import hmac
import sqlite3
import unicodedata
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from synclave_client.kept_secret import kept_secret
from synclave_client.vault.database import JournalDatabase
from synclave_shared.errors import ConfigurationError, JournalError

__all__ = ["DataSets"]

MARK_BYTES: Final = 16
"""Two patients of a site share a mark by chance with probability 2**-128."""


class DataSets:
    """The part of the journal that binds names; :class:`synclave_client.vault.journal.Journal` has one."""

    def __init__(self, database: JournalDatabase) -> None:
        self._database = database

    def check(self, dataset: str, folder: Path) -> None:
        """Refuse a data set under a new name, or a name for other data: a name is what a budget hangs on.

        Args:
            dataset: the data set's name in the settings.
            folder: its data folder.

        Raises:
            ConfigurationError: if a plan was accepted for this folder, one above or one below it under another name,
                or for this name with another folder.
        """
        here = folder.resolve()
        for name, text in self._database.all("SELECT name, folder FROM data_sets"):
            there = Path(text)
            if name == dataset and there != here:
                raise ConfigurationError(
                    expected=f"the data set {dataset} in {there}, where its budget was first spent",
                    found=f"data_folder {here}",
                    remedy="Put these patients there, or give other patients another `dataset` in site.toml.",
                )
            if name != dataset and (there == here or there in here.parents or here in there.parents):
                raise ConfigurationError(
                    expected=f"the data in {there} under the name of their budget, {name}",
                    found=f"dataset {dataset} with data_folder {here}",
                    remedy="Correct `dataset` in site.toml: the same patients have one budget, whatever their name.",
                )

    def marks(self, secret_file: Path, patient_ids: Iterable[str]) -> frozenset[bytes]:
        """Each patient's mark.

        Args:
            secret_file: the site's secret for marks; made if the journal holds no mark yet.
            patient_ids: identifiers as the data have them.

        Raises:
            ConfigurationError: if the secret can be neither read nor made.
            JournalError: if it is missing, and with it whom the marks in the journal are of.
        """
        if not secret_file.exists() and self._database.one("SELECT 1 FROM patients LIMIT 1") is not None:
            raise JournalError(
                expected=f"the secret in {secret_file}, under which this journal knows the patients of its budgets",
                found="nothing",
                remedy="Put the file back from the backup of the state folder; it belongs to the journal.",
            )
        secret = kept_secret(secret_file)
        return frozenset(hmac.digest(secret, _plain(name).encode(), "sha256")[:MARK_BYTES] for name in patient_ids)

    def admit(self, dataset: str, patients: Collection[bytes]) -> None:
        """Check who is in a data set that was just read; those who are new in one with a budget share that from now on.

        Args:
            dataset: its name in the settings.
            patients: their marks.

        Raises:
            ConfigurationError: if some of them are patients of a data set with another name, whose budget they have.
        """
        with self._database.write() as database:
            self._check_patients(dataset, patients)
            if database.execute("SELECT 1 FROM data_sets WHERE name = ?", (dataset,)).fetchone() is not None:
                _add(database, dataset, patients)

    def bind(self, database: sqlite3.Connection, dataset: str, folder: Path, patients: Collection[bytes]) -> None:
        """Bind a name to its folder and its patients, within a transaction that is open.

        Raises:
            ConfigurationError: see :meth:`check` and :meth:`admit`.
        """
        self.check(dataset, folder)
        self._check_patients(dataset, patients)
        database.execute("INSERT OR IGNORE INTO data_sets VALUES (?, ?)", (dataset, str(folder.resolve())))
        _add(database, dataset, patients)

    def _check_patients(self, dataset: str, patients: Collection[bytes]) -> None:
        rows = self._database.all("SELECT mark, dataset FROM patients WHERE dataset != ?", dataset)
        shared = [name for mark, name in rows if mark in patients]
        if shared:
            names = ", ".join(sorted(set(shared)))
            raise ConfigurationError(
                expected=f"patients who have no budget under another name, in the data set {dataset}",
                found=f"{len(shared)} who have the budget of {names}",
                remedy=f"The same patients have one budget: use the name and the folder of {names}, or leave these"
                " patients out. If two systems number different people alike, put a prefix before the identifiers.",
            )


def _plain(identifier: str) -> str:
    """What another export of the same records leaves of an identifier: no blanks around it, case, zeros or ``.0``."""
    text = unicodedata.normalize("NFKC", identifier).strip().casefold()
    number = text.removesuffix(".0")
    return (number.lstrip("0") or "0") if number.isdecimal() else text


def _add(database: sqlite3.Connection, dataset: str, patients: Collection[bytes]) -> None:
    database.executemany("INSERT OR IGNORE INTO patients VALUES (?, ?)", [(mark, dataset) for mark in sorted(patients)])
