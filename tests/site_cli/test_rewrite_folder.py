"""``synclave-site rewrite`` over a folder of notes, hostile ones among them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from synclave_client.rewriting import rewrite_folder
from synclave_server.pretraining import PretrainedModel
from synclave_server.public_model import write_public_model
from synclave_shared.data.notes.reading import load_notes
from synclave_shared.data.notes.schema import NotesSchema
from synclave_shared.model_spec import NotesSpec
from synclave_shared.models.note_base import build_note_lm, look_up_base
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.models.stored.public_model import PublicTraining
from synclave_shared.text.fill_words import Drawing
from synclave_shared.text.rewrite import RewriteSettings

SCHEMA = Path(__file__).parents[2] / "examples" / "notes" / "schema.toml"

HOSTILE = {
    "plain": "Patient: Wilfredo Sheesley, MRN 00482913, seen 03/04/2015. He denies chest pain and takes lisinopril.",
    "only identifiers": "Wilfredo Sheesley\n00482913\n03/04/2015\n(478) 555-0193",
    "empty": "   \n\t ",
    "book": "Mr. Sheesley has pain. " * 3000,
    "one line": "Mr. Wilfredo Sheesley has had a cough and was seen by his doctor in clinic today for pain. " * 60,
    "one word": "Sheesley" + "a" * 5000,
    "languages": "El paciente Wilfredo Sheesley niega dolor. Der Patient Wilfredo Sheesley hat Schmerzen. 患者は痛い。",
    "control": "Pt Wilfredo\u0007 Sheesley\u001b[31m was seen\u0085 by Dr. Sheesley\u2028and has pain\u202e gnihtemos",
    "hidden": "Mr. Wil\u200bfredo Shee\u00adsley has pain. Ｗｉｌｆｒｅｄｏ Ｓｈｅｅｓｌｅｙ came for a cough.",
    "slots": "[PATIENT] [MASK] [CLS] <script>Sheesley</script> {{Wilfredo}} has pain.",
    "digits": "MRN 00482913 " * 200,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A public model that has learnt nothing."""
    folder = tmp_path_factory.mktemp("model")
    spec, base = look_up_base(NotesSpec(width=64, blocks=1), folder)
    none = np.zeros(0, np.float32)
    learnt = PretrainedModel(
        parameters=np.asarray(parameter_vector(build_note_lm(spec, base)), np.float32), anchor=none, label_shares=none
    )
    training = PublicTraining(
        patients=1, files=(), steps=1, batch_size=1, seed=0, precision="float32", device="cpu", versions={}
    )
    write_public_model(folder, NotesSchema.load(SCHEMA), spec, learnt, training)
    return folder


def rewritten(model: Path, tmp_path: Path, **settings: Any) -> tuple[dict[str, Any], Path]:
    notes = tmp_path / "notes.jsonl"
    with notes.open("w", encoding="utf-8") as file:
        for name, text in HOSTILE.items():
            row = {"patient": name, "name": "Wilfredo Sheesley", "record_number": "00482913", "sex": "male"}
            file.write(json.dumps(row | {"type": "consult", "text": text}) + "\n")
    out = tmp_path / "out"
    document = rewrite_folder(
        notes,
        SCHEMA,
        model,
        out,
        settings=RewriteSettings(),
        drawing=Drawing(calls=2),
        progress=lambda done, of: None,
        **settings,
    )
    return document, out


def test_hostile_notes_give_a_safe_text_or_a_refusal_that_says_why(model: Path, tmp_path: Path) -> None:
    document, out = rewritten(model, tmp_path)
    lines = [json.loads(line) for line in (out / "notes.jsonl").read_text(encoding="utf-8").splitlines()]
    assert document["without_text"] == 1
    assert document["notes"] == len(HOSTILE) - 1 == len(lines) + len(document["refused"])
    reasons = {one["patient"]: one["reason"] for one in document["refused"]}
    assert reasons.pop("book") == "too-long"
    assert set(reasons.values()) <= {"identifier", "overlap"}
    assert "plain" not in reasons
    for line in lines:
        # What a reader sees: marks without width are none.
        text = re.sub("[\u200b\u00ad]", "", line["text"])
        assert not re.search(r"(?i)\b(?:wilfredo|sheesley)\b|00482913|Ｓｈｅｅｓｌｅｙ", text)
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e]", text)
        assert line["_origin"] == "rewritten"


def test_parquet_has_the_rows_that_lines_have_and_the_reader_takes_them_for_no_patients(
    model: Path, tmp_path: Path
) -> None:
    document, out = rewritten(model, tmp_path, form="parquet")
    table = pq.read_table(out / "notes.parquet")
    assert table.num_rows == document["written"]
    assert set(table.column_names) == {"patient", "_origin", "sex", "text", "type"}
    with pytest.raises(Exception, match="rewritten"):
        load_notes(NotesSchema.load(SCHEMA), out / "notes.parquet")
