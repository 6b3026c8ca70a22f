"""What each source of detection adds: ``python -m bench.notes.detection --data DIR``; writes bench/results/notes-detection.{json,md}.

The test notes (a third of the sample numbers, by hash) are in no training note and no word list of medicine, and their
names in no synthetic training note; the second test set gives the same notes names that no list has. Their *templates*
are seen: the rest of the same pack uses the same ones, was read while cues were written, and is part of the tagger's
training (``train_tagger --hold-out`` leaves half of them out; ``bench.notes.unseen`` measures on those). Trained parts are repeated with every file in --taggers.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import statistics
import subprocess
import time
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file

from bench.notes.corpora import Gold, Note, injected_notes, meddocan_notes
from bench.notes.written_notes import composed_name
from synclave_server.evaluation.notes.detection import DetectionScore, GoldSpan, MarkedNote, score_detection
from synclave_shared.text.entities import EntityFinder
from synclave_shared.text.phi import Detector, RecordIdentifiers
from synclave_shared.text.phi.lexicon import word_list, word_lists
from synclave_shared.text.phi.locales import locale_for
from synclave_shared.text.phi.tagger import PHI_TAGS, PhiTagger
from synclave_shared.text.spans import PhiClass, Span
from synclave_shared.text.tagger import Tagger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ROOT = Path(__file__).parents[2]
PEER = ROOT / ".peers/presidio/bin/python"
NAMES = ("PATIENT", "DOCTOR", "RELATIVE")
NUMBERS = frozenset(
    {
        PhiClass.MRN,
        PhiClass.SSN,
        PhiClass.ACCOUNT,
        PhiClass.HEALTH_PLAN,
        PhiClass.LICENCE,
        PhiClass.DEVICE,
        PhiClass.OTHER,
        PhiClass.VEHICLE,
    }
)
CLASSES = {
    **dict.fromkeys((*NAMES, "NOMBRE_SUJETO_ASISTENCIA", "NOMBRE_PERSONAL_SANITARIO"), frozenset({PhiClass.NAME})),
    **dict.fromkeys(
        ("HOSPITAL", "CITY", "STATE", "STREET", "ZIP", "TERRITORIO", "CALLE", "PAIS", "INSTITUCION", "CENTRO_SALUD"),
        frozenset({PhiClass.PLACE}),
    ),
    **dict.fromkeys(("DATE", "AGE", "FECHAS"), frozenset({PhiClass.DATE})),
    **dict.fromkeys(("PHONE", "NUMERO_TELEFONO", "NUMERO_FAX"), frozenset({PhiClass.PHONE, PhiClass.FAX})),
}
NOT_HIPAA = {"SEXO_SUJETO_ASISTENCIA", "PROFESION", "OTROS_SUJETO_ASISTENCIA"}
"""Of MEDDOCAN: no identifiers under HIPAA; ages and relatives count only as ages over 89 and as names."""


def fits(label: str, span: Span) -> bool:
    """Whether a span's class is right for a gold label."""
    return span.phi in CLASSES.get(label, NUMBERS | {PhiClass.EMAIL, PhiClass.URL})


def hipaa_only(note: Note) -> Note:
    """A MEDDOCAN note with the marks that HIPAA knows."""

    def kept(gold: Gold) -> bool:
        surface = note.text[gold.start : gold.end]
        if gold.label == "EDAD_SUJETO_ASISTENCIA":
            return any(int(number) > 89 for number in re.findall(r"\d+", surface)[:1])
        if gold.label == "FAMILIARES_SUJETO_ASISTENCIA":
            return (
                surface.istitle()
                and " " not in surface
                and note.text[gold.start - 2 : gold.start] not in (". ", ".\n", ":\n")
            )
        if gold.label == "ID_SUJETO_ASISTENCIA":
            # "viudo", "raza caucásica"
            return any(letter.isdigit() for letter in surface)
        return gold.label not in NOT_HIPAA

    return replace(note, gold=tuple(gold for gold in note.gold if kept(gold)))


@cache
def _composable() -> tuple[dict[str, list[str]], frozenset[str]]:
    """Names to compose others of, and all words that the others must not be."""
    sources = (("name", "family"), ("place", "places-us"))
    lists = {
        kind: sorted(word for word in word_list(name) if word.isalpha() and len(word) > 4) for kind, name in sources
    }
    return lists, word_lists(("given", "family", "places-us", "ordinary-en"))


def with_unlisted_names(note: Note, seed: int) -> Note:
    """The same note with names of persons and towns that no list has, the same one for the same one."""
    draw = random.Random(f"{seed}:{note.name}")
    lists, listed = _composable()
    new: dict[str, str] = {}

    def other(word: str, kind: str) -> str:
        if len(word) < 2:
            return word
        key = word.lower()
        while key not in new:
            candidate = composed_name(draw, lists[kind])
            if candidate not in listed:
                new[key] = candidate
        return new[key].upper() if word.isupper() else new[key].title() if word[0].isupper() else new[key]

    out, gold, last, size = [], [], 0, 0
    for one in sorted(note.gold, key=lambda one: one.start):
        before, surface = note.text[last : one.start], note.text[one.start : one.end]
        if one.label in (*NAMES, "CITY"):
            kind = "place" if one.label == "CITY" else "name"
            surface = re.sub(r"[^\W\d_]+", lambda found, kind=kind: other(found.group(), kind), surface)
        out += [before, surface]
        size += len(before)
        gold.append(Gold(start=size, end=size + len(surface), label=one.label))
        size += len(surface)
        last = one.end
    return Note(name=note.name, text="".join([*out, note.text[last:]]), gold=tuple(gold))


def record_of(note: Note) -> RecordIdentifiers:
    """What a hospital's own record would hold: name, relatives, first number, telephone and address; no doctors."""

    def surfaces(*labels: str) -> list[str]:
        return [note.text[gold.start : gold.end] for gold in note.gold if gold.label in labels]

    names = sorted(surfaces("PATIENT"), key=len)[-1:]
    return RecordIdentifiers(
        names=tuple(names),
        relatives=tuple(surfaces("RELATIVE")),
        numbers=tuple(surfaces("ID")[:1]),
        phones=tuple(surfaces("PHONE")[:1]),
        emails=tuple(surfaces("EMAIL")[:1]),
        addresses=tuple(surfaces("STREET")[:1]),
    )


def presidio(notes: Sequence[Note], code: str) -> list[list[Span]]:
    """Presidio's findings, all as one class: it is scored on what it masks."""
    request = json.dumps({"language": code, "texts": [note.text for note in notes]})
    answer = subprocess.run(
        [PEER, ROOT / "bench/notes/presidio_peer.py"], input=request, capture_output=True, text=True, check=True
    )
    return [
        [
            Span(start=s, end=e, phi=PhiClass.OTHER, kind=kind, source="presidio", confidence=score)
            for s, e, kind, score in spans
        ]
        for spans in json.loads(answer.stdout)
    ]


def tagger_from(path: Path, code: str) -> PhiTagger:
    """A trained tagger."""
    network = Tagger(len(PHI_TAGS))
    network.load_state_dict({name: array.float() for name, array in load_file(path).items()})
    return PhiTagger(network=network.eval().requires_grad_(False), locale=locale_for(code))


def row(
    name: str, notes: Sequence[Note], found: list[list[Span]], seconds: float, medicine: list[list[tuple[int, int]]]
) -> dict[str, object]:
    """One line of the table."""
    score: DetectionScore = score_detection(
        [
            MarkedNote(
                text=note.text,
                gold=[GoldSpan(start=g.start, end=g.end, label=g.label) for g in note.gold],
                found=spans,
                medicine=terms,
            )
            for note, spans, terms in zip(notes, found, medicine, strict=True)
        ],
        fits=fits,
    )
    label, worst = score.worst()
    print(
        f"{name:34} token {score.all_classes.token_recall:.4f} full {score.all_classes.full_recall:.4f} worst {label} {worst:.4f} precision {score.precision:.4f} over {score.over_masked:.4f}",
        flush=True,
    )
    everything = score.all_classes
    return {
        "arm": name,
        "token_recall": everything.token_recall,
        "full_recall": everything.full_recall,
        "any_recall": everything.any_recall,
        "strict_recall": everything.strict_recall,
        "worst_class": label,
        "worst_token_recall": worst,
        "precision": score.precision,
        "span_precision": score.span_precision,
        "over_masked": score.over_masked,
        "medicine_masked": score.medicine_masked,
        "intervals": score.intervals,
        "ms_per_note": 1000 * seconds / len(notes),
        "classes": {
            name: asdict(one) | {"token_recall": one.token_recall, "full_recall": one.full_recall}
            for name, one in score.classes.items()
        },
    }


def arms(
    notes: Sequence[Note], code: str, taggers: Sequence[Path], medicine: list[list[tuple[int, int]]]
) -> list[dict[str, object]]:
    """All lines for one test set."""
    rows = []
    if PEER.exists():
        begun = time.perf_counter()
        found = presidio(notes, code)
        rows.append(row("Presidio, blank pipeline", notes, found, time.perf_counter() - begun, medicine))
    base = Detector.for_locale(code)

    def run(name: str, detector_for: Callable[[Note], Detector]) -> None:
        begun = time.process_time()
        found = [detector_for(note).detect(note.text) for note in notes]
        rows.append(row(name, notes, found, time.process_time() - begun, medicine))

    run("patterns", lambda _note: replace(base, lists=False))
    run("+ lists, context, consistency", lambda _note: base)
    for place, path in enumerate(taggers):
        tagger = tagger_from(path, code)
        if place == 0:
            run("tagger alone", lambda _note, tagger=tagger: _only(tagger, base))
        run(f"+ tagger, seed {place}", lambda _note, tagger=tagger: replace(base, tagger=tagger))
        if code == "en":
            run(
                f"+ own record, seed {place}",
                lambda note, tagger=tagger: replace(base, tagger=tagger).of_patient(record_of(note)),
            )
    return rows


class _only:  # noqa: N801 - stands in for a detector
    def __init__(self, tagger: PhiTagger, base: Detector) -> None:
        self.tagger = tagger

    def detect(self, text: str) -> list[Span]:
        return self.tagger.spans(text)


def table(rows: Sequence[dict[str, object]]) -> list[str]:
    """Markdown."""
    lines = [
        "| sources | recall, tokens | full cover | worst class (>= 30) | strict | precision | over-masked | medicine masked | ms/note |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        low, high = one["intervals"]["token_recall"]  # type: ignore[index]
        cells = [
            one["arm"],
            f"{one['token_recall']:.4f} ({low:.3f}-{high:.3f})",
            f"{one['full_recall']:.4f}",
            f"{one['worst_class']} {one['worst_token_recall']:.3f}",
            f"{one['strict_recall']:.3f}",
            f"{one['precision']:.3f}",
            f"{100 * one['over_masked']:.2f} %",  # type: ignore[operator]
            "-" if math.isnan(one["medicine_masked"]) else f"{100 * one['medicine_masked']:.2f} %",  # type: ignore[arg-type,operator]
            f"{one['ms_per_note']:.0f}",
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def over_seeds(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Mean and spread of what the trained part changes."""
    seeds = [one for one in rows if re.fullmatch(r"\+ tagger, seed \d+", one["arm"])]
    if len(seeds) < 2:
        return []
    parts = []
    for name, key in (("recall", "token_recall"), ("full cover", "full_recall"), ("precision", "precision")):
        values = [float(one[key]) for one in seeds]
        parts.append(f"{name} {statistics.mean(values):.4f} ({min(values):.4f}-{max(values):.4f})")
    return [f"Over {len(seeds)} seeds, mean (least-most): {', '.join(parts)}.", ""]


def page(answer: Mapping[str, dict[str, Any]]) -> list[str]:
    """The results as Markdown."""
    lines = [
        "# Detection of identifiers",
        "",
        "`python -m bench.notes.detection --data DIR`; how to read it, and what it cannot tell: [docs/notes.md](../../docs/notes.md).",
        "",
    ]
    for name, one in answer.items():
        lines += [f"## {name}", "", f"{one['notes']} notes, {one['identifiers']} identifiers.", ""]
        lines += [*table(one["rows"]), "", *over_seeds(one["rows"])]
        last = one["rows"][-1]
        lines += ["By class, last line:", "", "| class | identifiers | tokens | full |", "|---|---|---|---|"]
        lines += [
            f"| {label} | {counts['entities']} | {counts['token_recall']:.4f} | {counts['full_recall']:.4f} |"
            for label, counts in last["classes"].items()
        ]
        lines.append("")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="folder of public packs, docs/notes.md")
    parser.add_argument(
        "--taggers", type=Path, nargs="*", default=[ROOT / "shared/synclave_shared/text/data/phi-tagger.safetensors"]
    )
    parser.add_argument("--limit", type=int, default=10**6, help="notes of each set")
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results")
    options = parser.parse_args()
    finder = EntityFinder()
    test = injected_notes(test=True, data=options.data)[: options.limit]
    sets = {
        "PHI-injected notes, test part": ("en", test),
        "the same notes, names and towns that no list has": ("en", [with_unlisted_names(note, 0) for note in test]),
        "MEDDOCAN dev (Spanish), HIPAA classes": (
            "es",
            [hipaa_only(note) for note in meddocan_notes("dev", options.data)[: options.limit]],
        ),
    }
    answer: dict[str, dict[str, Any]] = {}
    for name, (code, notes) in sets.items():
        entities = sum(len(note.gold) for note in notes)
        print(f"{name}: {len(notes)} notes, {entities} identifiers", flush=True)
        medicine = [[(e.start, e.end) for e in finder.find(note.text)] if code == "en" else [] for note in notes]
        rows = arms(notes, code, options.taggers, medicine)
        answer[name] = {"notes": len(notes), "identifiers": entities, "rows": rows}
    options.out.mkdir(exist_ok=True)
    (options.out / "notes-detection.json").write_text(json.dumps(answer, indent=1) + "\n")
    (options.out / "notes-detection.md").write_text("\n".join(page(answer)))


if __name__ == "__main__":
    main()
