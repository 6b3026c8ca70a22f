"""A data set with its task: a folder like examples/sepsis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synclave_shared.data.modality import load_schema
from synclave_shared.data.series.dataset import SeriesDataset, together
from synclave_shared.data.series.reading import load_series
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.errors import DataError

__all__ = ["SeriesFolder", "load_folder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesFolder:
    """Patients to learn from and patients to judge by; no patient is in both.

    Attributes:
        name: of the folder.
        schema: of all.
        sites: the training patients of each site.
        held_out_sites: the patients of each site to judge by.
    """

    name: str
    schema: SeriesSchema
    sites: Mapping[str, SeriesDataset]
    held_out_sites: Mapping[str, SeriesDataset]

    @property
    def train(self) -> SeriesDataset:
        """The training patients of all sites."""
        return together(list(self.sites.values()))

    @property
    def held_out(self) -> SeriesDataset:
        """The held-out patients of all sites."""
        return together(list(self.held_out_sites.values()))

    @property
    def facts(self) -> dict[str, Any]:
        """What a table says of the data."""
        label = self.schema.label
        return {
            "label": label.title or label.name,
            "sites": {name: len(patients) for name, patients in self.sites.items()},
            "held_out": len(self.held_out),
            "positive": int(self.held_out.labels.astype(bool).sum()),
            "steps": self.schema.horizon,
            "channels": len(self.schema.channels),
        }


def load_folder(folder: Path) -> SeriesFolder:
    """Read ``schema.toml`` and the sites below ``sites`` and ``held-out``.

    Raises:
        DataError: if the schema is not one of time series, or what ``load_series`` raises.
    """
    schema = load_schema(folder / "schema.toml")
    if not isinstance(schema, SeriesSchema):
        raise DataError(
            expected=f"a schema of time series in {folder}",
            found="a schema of codes",
            remedy="name a folder like examples/sepsis",
        )
    places = {
        place: {path.name: load_series(schema, path) for path in sorted((folder / place).iterdir())}
        for place in ("sites", "held-out")
    }
    return SeriesFolder(
        name=folder.resolve().name, schema=schema, sites=places["sites"], held_out_sites=places["held-out"]
    )
