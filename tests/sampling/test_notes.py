"""Notes drawn from a snapshot: nothing private in them, each from its own random numbers."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from synclave_server.aggregate import ServerState
from synclave_server.sampling.cohort_writer import digest_of
from synclave_server.sampling.engine import sample
from synclave_server.sampling.note_patients import CodesCohort
from synclave_server.sampling.note_rows import NOTE_BYTES, pack_note, unpack_note
from synclave_server.sampling.notes import NotesGenerator, NotesSources, _agreeing
from synclave_server.sampling.request import NotesRequest, SampleRequest
from synclave_server.sampling.rows import synthetic_id
from synclave_server.snapshots import write_snapshot
from synclave_shared.data.notes.reading import load_notes
from synclave_shared.data.patient_table import write_patient_table
from synclave_shared.data.schema import Schema
from synclave_shared.errors import ConfigurationError
from synclave_shared.model_spec import NotesSpec
from synclave_shared.models.note_base import build_note_lm, look_up_base
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.text.slots import SLOT_PATTERN
from synclave_shared.text.templates import Gap, Template, invented_patient, shipped_templates
from tests.federation.test_notes_run import SCHEMA as SMALL_SCHEMA
from tests.federation.test_notes_run import SMALL, plan_of

SCHEMA = SMALL_SCHEMA
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of an untrained model."""
    spec, base = look_up_base(NotesSpec.model_validate(SMALL), Path())
    folder = tmp_path_factory.mktemp("run") / "snapshot"
    write_snapshot(
        folder,
        plan=plan_of(spec),
        schema=SCHEMA.to_json_bytes(),
        round_number=1,
        model=parameter_vector(build_note_lm(spec, base)),
        anchor=None,
        label_shares=None,
        server_state=ServerState(np.zeros(0), np.zeros(0)),
        sites=("north",),
        aggregate_digest="0" * 64,
        ledger_index=3,
    )
    return folder


def texts(path: Path) -> dict[str, tuple[str, str]]:
    """Type and text of each patient."""
    dataset = load_notes(SCHEMA, path)
    found = zip(dataset.patient_ids, dataset.notes, strict=True)
    return {patient: (note.type, note.text) for patient, (note,) in found}


def test_a_note_depends_on_its_number_alone_and_says_where_it_comes_from(snapshot: Path, tmp_path: Path) -> None:
    labels = {"no": 6, "yes": 4}
    provenance = sample(snapshot, 10, out=tmp_path / "a.parquet", label_counts=labels, seed=5, steps=3)
    assert provenance.request.network_calls == 3
    assert provenance.request.notes == NotesRequest()
    assert provenance.plan_digest == plan_of(look_up_base(NotesSpec.model_validate(SMALL), Path())[0]).digest
    found = texts(tmp_path / "a.parquet")
    assert len(found) == 10
    sample(
        snapshot,
        10,
        out=tmp_path / "b.jsonl",
        label_counts=labels,
        seed=5,
        steps=3,
        cohort_format="jsonl",
        batch_size=3,
    )
    assert texts(tmp_path / "b.jsonl") == found
    assert json.loads((tmp_path / "b.jsonl.provenance.json").read_text())["ledger_index"] == 3
    sample(snapshot, 13, out=tmp_path / "c.parquet", label_counts={"no": 13}, seed=5, steps=3)
    longer = texts(tmp_path / "c.parquet")
    labelled = load_notes(SCHEMA, tmp_path / "a.parquet")
    for patient, label in zip(labelled.patient_ids, labelled.labels, strict=True):
        if label == 0:
            assert longer[patient] == found[patient]
    sample(snapshot, 10, out=tmp_path / "d.parquet", label_counts=labels, seed=6, steps=3)
    assert not set(texts(tmp_path / "d.parquet").values()) & set(found.values())
    for kind, text in found.values():
        assert kind in SCHEMA.notes.types
        assert not SLOT_PATTERN.search(text)
        assert not any(special in text for special in ("[MASK]", "[PAD]", "[CLS]", "[SEP]", "{"))
        own = [template.text.split(":")[0] for template in shipped_templates() if template.name == kind]
        assert any(text.startswith(("CHIEF COMPLAINT", "DATE", "INTERVAL", "HISTORY", head[:9])) for head in own)


def test_diversity_is_asked_for_and_calls_stay_the_same(snapshot: Path, tmp_path: Path) -> None:
    found = {}
    for name, notes in (("plain", NotesRequest(temperature=Decimal(0))), ("free", NotesRequest(top_p=Decimal("0.9")))):
        provenance = sample(snapshot, 4, out=tmp_path / f"{name}.parquet", seed=1, steps=2, notes=notes)
        assert provenance.request.network_calls == 2
        found[name] = texts(tmp_path / f"{name}.parquet")
    words = {name: {word for _, text in notes.values() for word in text.split()} for name, notes in found.items()}
    assert len(words["plain"]) < len(words["free"])
    orders = []
    for sampler in ("random", "left-to-right", "entropy"):
        sample(snapshot, 4, out=tmp_path / f"{sampler}.parquet", seed=1, steps=2, sampler=sampler)
        orders.append(texts(tmp_path / f"{sampler}.parquet"))
    assert orders[0] != orders[1] != orders[2]


def test_options_of_other_modalities_are_refused(snapshot: Path, tmp_path: Path) -> None:
    for options in ({"guidance": Decimal(1)}, {"given": ["x"]}, {"sampler": "unipc"}, {"cohort_format": "meds"}):
        with pytest.raises(ConfigurationError):
            sample(snapshot, 3, out=tmp_path / "wrong", **options)  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())
    with pytest.raises(ConfigurationError, match="codes"):
        CodesCohort.read(tmp_path / "nothing.parquet", snapshot / "schema.json")
    with pytest.raises(ConfigurationError, match="schema"):
        sample(snapshot, 3, out=tmp_path / "wrong.parquet", sources=NotesSources(codes=tmp_path / "c.parquet"))


@pytest.mark.parametrize("text", ["", "Chest pain.\n", "\0 é" * 9000])
def test_rows_come_back(text: str) -> None:
    row = pack_note("consult", text)
    assert row.shape == (NOTE_BYTES,)
    kind, found = unpack_note(row)
    assert kind == "consult"
    assert text.replace("\0", " ").startswith(found)
    assert found == text or len(text) > 8000


def codes_cohort(path: Path, seed: int) -> Schema:
    """Four synthetic patients of the diabetes example: all women from 70 to 80, with one diagnosis each."""
    schema = Schema.load(EXAMPLES / "diabetes" / "schema.toml")
    features = np.zeros((4, schema.width), np.uint8)
    for group in schema.groups:
        if group.kind == "categorical":
            features[:, group.start] = 1
    for name, wanted in (("gender", "Female"), ("age", "[70-80)")):
        group = next(group for group in schema.groups if group.name == name)
        features[:, group.start : group.stop] = 0
        features[:, group.columns.index(f"{name}:{wanted}") + group.start] = 1
    first = next(group.start for group in schema.groups if group.kind == "binary")
    features[np.arange(4), first + np.arange(4)] = 1
    counts = {value: 4 * (place == 0) for place, value in enumerate(schema.label.values)}
    notes = {"synclave.provenance": json.dumps({"request": {"seed": str(seed), "label_counts": counts}})}
    ids = [synthetic_id(number) for number in range(4)]
    write_patient_table(path, schema, features, np.zeros(4, np.int64), ids, notes)
    return schema


def test_notes_are_about_the_synthetic_patients_of_a_codes_model(snapshot: Path, tmp_path: Path) -> None:
    schema = codes_cohort(tmp_path / "codes.parquet", seed=9)
    sources = NotesSources(codes=tmp_path / "codes.parquet", codes_schema=EXAMPLES / "diabetes" / "schema.toml")
    cohort = sources.cohort()
    assert cohort is not None
    about = [cohort.patient(number, np.random.default_rng(number)) for number in range(4)]
    assert {patient.sex for patient in about} == {"female"}
    assert all(70 <= patient.age < 80 for patient in about)
    first = next(group.start for group in schema.groups if group.kind == "binary")
    provenance = sample(snapshot, 4, out=tmp_path / "notes.parquet", seed=1, steps=2, sources=sources)
    assert provenance.request.notes is not None
    assert provenance.request.notes.codes == digest_of(tmp_path / "codes.parquet")
    for number, (_, text) in enumerate(texts(tmp_path / "notes.parquet").values()):
        assert schema.titles[first + number].partition(": ")[2] in text
    with pytest.raises(ConfigurationError, match="at least 5"):
        sample(snapshot, 5, out=tmp_path / "more.parquet", sources=sources)


def test_where_the_label_is_the_sex_the_note_says_the_same(snapshot: Path) -> None:
    base = look_up_base(NotesSpec.model_validate(SMALL), Path())[1]
    spec = look_up_base(NotesSpec.model_validate(SMALL), Path())[0]
    label = SCHEMA.label.model_copy(update={"name": "sex", "values": ("female", "male", "not told")})
    schema = SCHEMA.model_copy(update={"label": label})
    generator = NotesGenerator(spec, schema, base, parameter_vector(build_note_lm(spec, base)))
    request = sample_request(steps=2)
    labels = np.array([0, 1, 0, 2])
    documents = generator.documents(request, np.arange(4), labels)
    assert [found.patient.sex for found in documents] == ["female", "male", "female", "patient"]
    for found in documents:
        assert f" {found.patient.sex}" in found.text
        assert all("\n" not in words for words in found.words)
        assert not re.search(r"\b(\w*[a-z]) \1\b|[.,;:][.:]", found.text)
    # A document is the same whatever stands beside it.
    alone = generator.documents(request, np.array([2]), np.array([0]))
    assert alone[0] == documents[2]


@pytest.mark.parametrize(
    ("sex", "expected"),
    [
        ("female", "She hurt herself; I told her that her knee. Sheba"),
        ("male", "He hurt himself; I told him that his knee. Sheba"),
        ("patient", "The patient hurt the patient; I told the patient that the patient's knee. Sheba"),
    ],
)
def test_pronouns_agree_with_the_patient(sex: str, expected: str) -> None:
    assert _agreeing("He hurt himself; I told him that his knee. Sheba", sex) == expected


def sample_request(steps: int) -> SampleRequest:
    return SampleRequest(
        label_counts={"no": 1},
        sampler="confidence",
        steps=steps,
        seed="3",
        guidance=Decimal(0),
        precision="float32",
        calibrated=False,
        notes=NotesRequest(),
    )


def test_a_template_chooses_names_the_reason_again_and_knows_its_longest_gaps() -> None:
    lists = {kind: (f"{kind} a", f"{kind} b", f"{kind} c") for kind in ("problem", "test", "treatment", "drug")}
    text = "A: {reason}<, {problem}|>. <{words:8}|{words:20}> {words:4}\nB: {reason}; {problem}."
    template = Template(name="x", text=text, lists=lists)
    assert template.most_tokens == 24
    shapes = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        pieces = template.written(invented_patient(rng), rng)
        assert sum(piece.tokens for piece in pieces if isinstance(piece, Gap)) <= 24
        fixed = "".join(piece for piece in pieces if isinstance(piece, str))
        first, last = re.search(r"A: (problem \w)", fixed), re.search(r"B: (problem \w); (problem \w)", fixed)
        assert first is not None
        assert last is not None
        assert first[1] == last[1] != last[2]
        shapes.add(fixed.count("problem"))
    assert shapes == {3, 4}
    for shipped in shipped_templates():
        rng = np.random.default_rng(0)
        fixed = "".join(piece for piece in shipped.written(invented_patient(rng), rng) if isinstance(piece, str))
        assert not set("<>{}|") & set(fixed)
