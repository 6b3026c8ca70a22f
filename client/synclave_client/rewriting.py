"""``synclave-site rewrite``: a folder of real notes in, rewritten notes and what is to be known of them out."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

from synclave_client.kept_secret import SECRET_BYTES, kept_secret
from synclave_client.settings import SiteSettings
from synclave_shared.data.new_folder import new_folder
from synclave_shared.data.notes.reading import read_notes
from synclave_shared.data.notes.schema import NotesSchema
from synclave_shared.errors import ConfigurationError, SnapshotError
from synclave_shared.model_spec import NotesSpec
from synclave_shared.models.note_base import build_note_lm, find_base, look_up_base
from synclave_shared.models.note_lm import NoteLm
from synclave_shared.models.parameters import load_parameter_vector
from synclave_shared.models.stored.public_model import RECORD_FILE, read_public_model
from synclave_shared.models.stored.snapshot import SNAPSHOT_FILE, read_stored_snapshot
from synclave_shared.plan import AnyModel
from synclave_shared.text.chunks import heading
from synclave_shared.text.entities import EntityFinder, shipped_entity_network
from synclave_shared.text.fill_words import Drawing, WordFiller
from synclave_shared.text.linkage import linkage_rate
from synclave_shared.text.masking import record_identifiers, site_detector
from synclave_shared.text.phi import read_rules
from synclave_shared.text.replacements import KeyedDraws
from synclave_shared.text.rewrite import PatientNotes, Rewriter, RewriteSettings, Rewritten, SourceNote
from synclave_shared.text.tokenizer import NoteTokenizer

__all__ = ["STATEMENT", "read_canaries", "read_note_model", "rewrite_folder"]

STATEMENT: Final = (
    "Rewritten notes of real patients: they can be linked to their sources and stay inside the hospital. "
    "No epsilon is claimed for them."
)

_TOGETHER: Final = 16
"""Patients that are rewritten in the same calls of the network."""


def read_note_model(folder: Path) -> tuple[NoteLm, NoteTokenizer, str]:
    """A language model: a run, a snapshot, a public model, or a published model's folder; and its digest.

    Raises:
        SnapshotError: if it is none of them, or damaged.
        PlanError: if its base is not there.
    """
    if (folder / "config.json").is_file():
        spec, base = look_up_base(NotesSpec(base=folder.name), folder.absolute().parent)
        return build_note_lm(spec, base), base.tokenizer, base.digest
    folder = folder / "snapshot" if (folder / "snapshot").is_dir() else folder
    model: AnyModel
    if (folder / SNAPSHOT_FILE).is_file():
        snapshot = read_stored_snapshot(folder)
        model, vector, digest = snapshot.plan.model, snapshot.tensors["model"], snapshot.record.tensors_digest
    elif (folder / RECORD_FILE).is_file():
        public = read_public_model(folder)
        model, vector, digest = public.record.model, public.model, public.record.tensors_digest
    else:
        raise _no_model(folder, "none of them")
    if not isinstance(model, NotesSpec):
        raise _no_model(folder, f"a model of {model.kind}")
    base = find_base(model, (folder.parent, folder.parent.parent))
    network = build_note_lm(model, base)
    load_parameter_vector(network, vector)
    return network, base.tokenizer, digest


def _no_model(folder: Path, found: str) -> SnapshotError:
    return SnapshotError(
        expected=f"a language model of notes in {folder}: a run, a snapshot, a public model, or a published model",
        found=found,
        remedy="Name the folder that `synclave pretrain`, a run or `synclave fetch-base` left.",
    )


def read_canaries(path: Path) -> tuple[str, ...]:
    """Strings that no rewriting may hold, one a line.

    Raises:
        ConfigurationError: if the file cannot be read, or holds none.
    """
    try:
        found = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
        reason = "" if found else "no line"
    except (OSError, UnicodeDecodeError) as error:
        found, reason = (), getattr(error, "strerror", None) or "not UTF-8"
    if reason:
        raise ConfigurationError(
            expected="a text file with one canary a line", found=f"{path}: {reason}", remedy="Correct --canaries."
        )
    return found


def rewrite_folder(
    notes: Path,
    schema_file: Path,
    model: Path,
    out: Path,
    *,
    settings: RewriteSettings,
    drawing: Drawing,
    site: SiteSettings | None = None,
    canaries: tuple[str, ...] = (),
    form: Literal["jsonl", "parquet"] = "jsonl",
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Rewrite all notes of a folder; returns the provenance, which is written beside them.

    Args:
        notes: folder or file.
        schema_file: of the notes.
        model: the language model, see :func:`read_note_model`.
        out: new folder.
        settings: what to keep.
        drawing: how words are drawn.
        site: whose rules and key count: a patient has the same surrogates in every call; None: no rules, and a key for
            this call alone.
        canaries: strings that no rewriting may hold.
        form: of the file with the notes.
        progress: told the patients that are done, of how many.

    Raises:
        ConfigurationError, DataError, SchemaError, SnapshotError, PlanError: if something cannot be used.
    """
    schema = NotesSchema.load(schema_file)
    dataset, report = read_notes(schema, notes)
    if dataset is None:
        raise report.error()
    empty = sum(notice.count for notice in report.notices if notice.column == schema.notes.text)
    network, tokenizer, digest = read_note_model(model)
    rules = None if site is None or site.rules_file is None else read_rules(site.rules_file)
    detector = site_detector(schema.notes.language, rules)
    filler = WordFiller(network, tokenizer, detector.locale, schema.notes.tokens, drawing)
    # Without a site: kept nowhere, so that nobody can make the same surrogates again.
    key = secrets.token_bytes(SECRET_BYTES) if site is None else kept_secret(site.rewrite_key_file)
    rewriter = Rewriter(filler, EntityFinder(network=shipped_entity_network()), key, settings, canaries)
    patients = [
        PatientNotes(
            patient=name,
            notes=tuple(SourceNote(text=note.text, head=heading(schema, note.type, label)) for note in own),
            detector=detector.of_patient(record_identifiers(known)),
        )
        for name, own, label, known in zip(
            dataset.patient_ids, dataset.notes, dataset.labels.tolist(), dataset.identifiers, strict=True
        )
    ]
    results: list[list[Rewritten]] = []
    for start in range(0, len(patients), _TOGETHER):
        results += [found for _, found in rewriter.rewrite(patients[start : start + _TOGETHER])]
        progress(len(results), len(patients))
    flat = [one for own in results for one in own]
    sources = [note.text for own in dataset.notes for note in own]
    mentions, kept = (sum(one.entities[place] for one in flat) for place in (0, 1))
    refused = [
        {"patient": name, "note": number, "reason": one.refusal}
        for name, own in zip(dataset.patient_ids, results, strict=True)
        for number, one in enumerate(own, start=1)
        if one.text is None
    ]
    document: dict[str, Any] = {
        "statement": STATEMENT,
        "linkable": True,
        "epsilon": None,
        "schema_digest": schema.digest,
        "model_digest": digest,
        "key": "of this call" if site is None else "of the site",
        "ratio": settings.ratio,
        "keep_entities": settings.keep_entities,
        "calls": drawing.calls,
        "temperature": drawing.temperature,
        "top_k": drawing.top_k,
        "top_p": drawing.top_p,
        "precision": drawing.precision,
        "patients": len(patients),
        "notes": len(flat),
        "written": len(flat) - len(refused),
        "refused": refused,
        "without_text": empty,
        "rejected_tries": dict(Counter(reason for one in flat for reason in one.rejected)),
        "entities": mentions,
        "entities_kept": kept,
        "linkage_top1": linkage_rate(sources, [one.text for one in flat]),
    }
    table = next(table for table in schema.tables if table.name == schema.notes.table)
    stored = {value: text for text, value in reversed(schema.label.mapping.items())}
    rows = []
    for own, found, name, label in zip(
        dataset.notes, results, dataset.patient_ids, dataset.labels.tolist(), strict=True
    ):
        value = schema.label.values[label]
        for note, one in zip(own, found, strict=True):
            if one.text is None:
                continue
            row = {table.key: KeyedDraws(key, name).digest("patient").hex()[:16], "_origin": "rewritten"}
            row |= {schema.label.column: stored.get(value, value), schema.notes.text: one.text}
            row |= {} if schema.notes.type is None else {schema.notes.type: note.type}
            rows.append(row)
    with new_folder(out) as folder:
        _write_rows(rows, folder / f"notes.{form}")
        (folder / "provenance.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return document


def _write_rows(rows: list[dict[str, str]], path: Path) -> None:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
        return
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
