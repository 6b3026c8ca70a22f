"""Whose events are imported, and up to which time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa

from synclave_shared.data.meds.dataset import MedsDataset
from synclave_shared.data.meds.layout import SPLITS_FILE
from synclave_shared.data.meds.reading import MedsReading
from synclave_shared.errors import ConfigurationError

__all__ = ["ALWAYS", "Selection"]

ALWAYS: Final = 2**63 - 1
"""Stands for "no prediction time": every event is read."""


@dataclass(slots=True, kw_only=True)
class Selection:
    """Decides for each subject once, and remembers.

    Attributes:
        split_of: the split of each subject, None if the dataset has none.
        split: the split that is taken, None for all.
        until: subject -> microseconds since 1970 up to which events are read; None without labels.
        needs_label: whether the labels say who is a patient.
        decided: subject -> why it is left out, empty for the chosen.
    """

    split_of: dict[int, str] | None
    split: str | None
    until: dict[int, int] | None
    needs_label: bool
    decided: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, dataset: MedsDataset, split: str | None, labels: pa.Table | None, reading: MedsReading) -> Selection:
        """Take the choice from a dataset's splits and from labels.

        Raises:
            DataError: if the splits cannot be read.
            ConfigurationError: if the dataset does not have that split.
        """
        split_of = dataset.splits()
        if split is not None and split not in (split_of or {}).values():
            known = sorted(set((split_of or {}).values()))
            raise ConfigurationError(
                expected=f"a split of {dataset.folder / SPLITS_FILE}: {', '.join(known[:12]) or 'there is none'}",
                found=split,
                remedy="Choose one of them with --split, or leave it away to take all subjects.",
            )
        until = None
        if labels is not None:
            subjects = labels["subject_id"].to_numpy()
            times = labels["prediction_time"].cast(pa.int64()).to_numpy()
            # Of equal keys a dict keeps the last one: put the time that counts there.
            order = np.argsort(-times if reading.until == "first" else times, kind="stable")
            until = dict(zip(subjects[order].tolist(), times[order].tolist(), strict=True))
        return cls(split_of=split_of, split=split, until=until, needs_label=reading.roll == "labels")

    def limit(self, subject: int) -> int | None:
        """Up to which time the subject's events are read, in microseconds since 1970; None if it is left out."""
        reason = self.decided.get(subject)
        if reason is None:
            reason = self.decided[subject] = self._reason(subject)
        if reason:
            return None
        return ALWAYS if self.until is None else self.until.get(subject, ALWAYS)

    def _reason(self, subject: int) -> str:
        if self.split is not None and (self.split_of or {}).get(subject) != self.split:
            return "other-split"
        return "no-label" if self.needs_label and subject not in (self.until or {}) else ""

    def finish(self, with_events: Iterable[int] | None) -> list[int]:
        """Decide on the subjects of whom there was no event, too, and list the chosen.

        Args:
            with_events: if only who has an event that was read is a patient: those subjects.
        """
        for subject in self.split_of or {}:
            self.limit(subject)
        if with_events is not None:
            having = set(with_events)
            for subject, reason in self.decided.items():
                if not reason and subject not in having:
                    self.decided[subject] = "no-event"
        return sorted(subject for subject, reason in self.decided.items() if not reason)

    def left_out(self) -> Counter[str]:
        """Reason -> number of subjects."""
        return Counter(reason for reason in self.decided.values() if reason)
