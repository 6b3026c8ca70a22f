"""The benchmark of private training on notes: what is kept is not trained again, canaries go where they should."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.notes import training
from bench.notes.training import CANARIES, CELLS, CONTROLS, TIMES, Canaries, MaskedNote
from synclave_shared.model_spec import NotesSpec
from synclave_shared.models.note_base import find_base

CELL = {
    "before": 5.0,
    "after": 4.9,
    "patients": 3,
    "reference": 4,
    "by_loss": {"auc": 0.5, "interval": [0.4, 0.6], "hits": 0.05},
    "by_gain": {"auc": 0.6, "interval": [0.5, 0.7], "hits": 0.1},
    "exposure": {str(times): [1.0, 2.0] for times in TIMES},
    "fit_s": 60.0,
}


def forbidden(*_: object) -> dict[str, object]:
    pytest.fail("trained again")


def test_finished_cells_make_the_table_and_nothing_is_begun_after_the_budget(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(training, "KEPT", tmp_path)
    monkeypatch.setattr(training, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(training, "masked_notes", lambda _: {"patients": [], "reference": []})
    monkeypatch.setattr(training, "measured", forbidden)
    monkeypatch.setattr("sys.argv", ["training", "--data", "none", "--seeds", "0", "1", "--budget-s", "0"])
    training.main()
    assert not (tmp_path / "results").exists()
    (tmp_path / "federated-8-0.json").write_text(json.dumps(CELL))
    (tmp_path / "federated-8-1.json").write_text(json.dumps(CELL | {"after": 5.1}))
    training.main()
    text = (tmp_path / "results" / "notes-training.md").read_text()
    assert "| 8 | four sites | 5.000 ± 0.141 | 0.0000 ± 0.1414 | 0.500 ± 0.000 | 0.600 ± 0.000 |" in text
    assert "warm start 5.000 nats" in text
    assert len(text.strip().splitlines()) == 5


def test_each_canary_stands_in_one_note_as_often_as_it_is_said_to() -> None:
    drawn = Canaries.drawn(find_base(NotesSpec()), seed=0)
    assert len(drawn.controls) == CONTROLS
    notes = [MaskedNote(number=number, site="s", kind="other", text="a\nb") for number in range(60)]
    changed = drawn.put_into(notes, seed=0)
    for times, sentences in drawn.inserted.items():
        assert len(sentences) == CANARIES
        for sentence in sentences:
            assert sorted(note.text.count(sentence) for note in changed)[-2:] == [0, times]
    assert sum(note.text == "a\nb" for note in changed) == 60 - CANARIES * len(TIMES)
    assert not any(control in note.text for note in changed for control in drawn.controls)


def test_every_cell_has_an_arm() -> None:
    assert {name for name, _ in CELLS} == set(training.ARMS)
