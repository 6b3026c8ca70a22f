"""The workload of whatever modality a site's schema has."""

from __future__ import annotations

from synclave_client.settings import SiteSettings
from synclave_client.vault.notes_workload import NotesWorkload
from synclave_client.vault.rehearsals import Rehearsals
from synclave_client.vault.series_workload import SeriesWorkload
from synclave_client.vault.workload import PatientWorkload
from synclave_shared.data.modality import load_schema
from synclave_shared.data.notes.schema import NotesSchema
from synclave_shared.data.series.schema import SeriesSchema

__all__ = ["load_workload"]


def load_workload(
    settings: SiteSettings, rehearsals: Rehearsals | None = None
) -> PatientWorkload | SeriesWorkload | NotesWorkload:
    """Prove the clipping, then read the site's patients; see the classes' ``load`` for arguments and errors."""
    schema = load_schema(settings.schema_file)
    if isinstance(schema, SeriesSchema):
        return SeriesWorkload.load(settings, rehearsals)
    if isinstance(schema, NotesSchema):
        return NotesWorkload.load(settings, rehearsals)
    return PatientWorkload.load(settings, rehearsals)
