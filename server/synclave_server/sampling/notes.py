"""Synthetic notes from nothing private: a template, a patient's entities, and the words that the trained model writes.

Every document has random numbers of its own, like every patient of the other modalities
(:class:`~.generator.PatientGenerator`): its text depends on its number and label, and on the kind of device, alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synclave_server.sampling.generator import FIRST_STEP
from synclave_server.sampling.note_patients import CodesCohort
from synclave_server.sampling.note_rows import NOTE_BYTES, pack_note
from synclave_server.sampling.philox import PatientRandomness
from synclave_server.sampling.request import NotesRequest, Precision, SampleRequest
from synclave_shared.data.notes.schema import NotesSchema
from synclave_shared.diffusion.unmasking import Order, unmask
from synclave_shared.model_spec import NotesSpec
from synclave_shared.models.note_base import LoadedBase, build_note_lm
from synclave_shared.models.parameters import load_parameter_vector
from synclave_shared.text.chunks import heading, laid_out
from synclave_shared.text.neighbours import public_neighbours
from synclave_shared.text.surrogates import Surrogates
from synclave_shared.text.templates import Gap, Patient, Template, invented_patient, shipped_templates

__all__ = ["NotesGenerator", "NotesSources", "Written"]

CPU_ROWS: Final = 16
"""Chunks per call of the network on a CPU: logits of all their gaps are in memory at once."""

GPU_ROWS: Final = 128
"""Elsewhere."""

CHUNKS_OF_DOCUMENT: Final = 2
"""What a document of the shipped templates has in the mean: more documents are written at once than rows would hold."""

NEIGHBOURS_WEIGHT: Final = 0.5
"""Of the public pairs of neighbours beside an embedded network: best for notes that neither has seen."""

WINDOWS: Final = 4
"""Chunks of a document at most; text beyond them has no gaps filled, and is left out."""

UNTOLD: Final = "patient"
"""What a note calls somebody of whose sex the label says that it is not told."""

_SPACES: Final = re.compile(r"[^\S\n]+(?=[.,;:\n])")
_TWICE: Final = re.compile(r"\b([^\W\d_]+)(?: \1\b)+", re.IGNORECASE)
_STOPS: Final = re.compile(r"[.,;:]+(?=[.:])|[,;]+(?=[,;])")
_PRONOUN: Final = re.compile(r"\b(he|she|him|his|hers?|himself|herself)\b", re.IGNORECASE)
_PRONOUNS: Final = {
    "female": {"he": "she", "him": "her", "his": "her", "himself": "herself"},
    "male": {"she": "he", "her": "his", "hers": "his", "herself": "himself"},
    UNTOLD: dict.fromkeys(("he", "she", "him"), "the patient")
    | dict.fromkeys(("his", "her", "hers"), "the patient's")
    | dict.fromkeys(("himself", "herself"), "the patient"),
}
"""What pronouns become where they contradict the patient's sex; of "her" most mean "his"."""
_SEX: Final = re.compile(r"\b(?:sex|gender)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotesSources:
    """What notes are made of besides the snapshot.

    Attributes:
        models: folder in which a published language model lies.
        codes: cohort of codes whom the notes are about.
        codes_schema: its schema.
    """

    models: Path | None = None
    codes: Path | None = None
    codes_schema: Path | None = None

    def cohort(self) -> CodesCohort | None:
        """The patients of codes, if there are any."""
        if self.codes is None or self.codes_schema is None:
            return None
        return CodesCohort.read(self.codes, self.codes_schema)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Fixed text, or a gap: where its tokens stand among the document's."""

    text: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A document as the model left it.

    Attributes:
        kind: type of the note.
        patient: whom it is about.
        words: what the model wrote, gap by gap.
        text: all of it, slots filled.
    """

    kind: str
    patient: Patient
    words: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    """A document before its gaps are filled.

    Attributes:
        kind: type of the note.
        patient: whom it is about.
        pieces: in order.
        tokens: of all pieces; the mask token in gaps.
        rng: what is left of its random numbers, for the surrogates.
    """

    kind: str
    patient: Patient
    pieces: list[_Piece]
    tokens: list[int]
    rng: np.random.Generator


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chunk:
    """A row of the network's calls.

    Attributes:
        document: its place among the tile's.
        number: the patient's.
        window: which of the document's chunks it is.
        ids: tokens, int32 [T].
        begin, count: where its text begins, and how many tokens that has.
    """

    document: int
    number: int
    window: int
    ids: NDArray[np.int32]
    begin: int
    count: int


class NotesGenerator:
    """A trained language model on one device.

    Args:
        spec: the model's numbers.
        schema: length of chunks, types, label values.
        base: what the training began with.
        model: trained parameters, float32 [P].
        device: where to compute.
        precision: of the network.
        cohort: patients of codes whom the notes are about; None: invented ones.
    """

    def __init__(
        self,
        spec: NotesSpec,
        schema: NotesSchema,
        base: LoadedBase,
        model: NDArray[np.float32],
        device: torch.device | str = "cpu",
        precision: Precision = "float32",
        cohort: CodesCohort | None = None,
    ) -> None:
        self._schema, self._tokenizer, self._cohort = schema, base.tokenizer, cohort
        self._device = torch.device(device)
        self._reduced = precision == "bfloat16"
        self._rows = CPU_ROWS if self._device.type == "cpu" else GPU_ROWS
        self.tile = 4 * self._rows // CHUNKS_OF_DOCUMENT
        network = build_note_lm(spec, base).eval()
        load_parameter_vector(network, model)
        self._network = network.to(self._device)
        known = [(template, template.name) for template in shipped_templates() if template.name in schema.notes.types]
        free = schema.notes.types or ("",)
        self._choices: Sequence[tuple[Template, str]] = known or [
            (t, kind) for t in shipped_templates() for kind in free
        ]
        most = max(template.most_tokens for template, _ in self._choices)
        # Public: of templates alone, so that no document changes the shape of another's numbers.
        self._places = min(schema.notes.tokens, most)
        # A published model has read more than pairs.
        self._neighbours = public_neighbours(self._tokenizer.size) if base.folder is None else None
        logits = next(
            part.out_features for part in reversed(list(network.modules())) if isinstance(part, torch.nn.Linear)
        )
        self._forbidden = torch.zeros(logits, dtype=torch.bool)
        self._forbidden[sorted(number for number in self._tokenizer.never_drawn if number < logits)] = True
        self._forbidden[self._tokenizer.size :] = True
        # Inside a sentence a line break is noise: the layout is the template's.
        breaks = [number for number in range(self._tokenizer.size) if "\n" in self._tokenizer.decode([number])]
        self._forbidden[[number for number in breaks if number < logits]] = True
        self._forbidden = self._forbidden.to(self._device)

    def features(
        self, request: SampleRequest, patients: NDArray[np.int64], labels: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        """Write notes.

        Args:
            request: order of filling (``sampler``), calls (``steps``), seed, and ``notes``.
            patients: [n], patient numbers.
            labels: [n], their label numbers.

        Returns:
            uint8 [n, NOTE_BYTES], of :mod:`~.note_rows`; each row depends on its own number and label alone.
        """
        rows = np.empty((len(patients), NOTE_BYTES), np.uint8)
        for place, found in enumerate(self.documents(request, patients, labels)):
            rows[place] = pack_note(found.kind, found.text)
        return rows

    def documents(
        self, request: SampleRequest, patients: NDArray[np.int64], labels: NDArray[np.int64]
    ) -> list[Written]:
        """The notes as :meth:`features` packs them, and what in them the model wrote."""
        found = []
        for start in range(0, len(patients), self.tile):
            part = slice(start, start + self.tile)
            found += self._tile(request, patients[part], labels[part])
        return found

    def _tile(self, request: SampleRequest, patients: NDArray[np.int64], labels: NDArray[np.int64]) -> list[Written]:
        length, tokenizer = self._schema.notes.tokens, self._tokenizer
        documents, chunks = [], []
        for number, label in zip(patients.tolist(), labels.tolist(), strict=True):
            document = self._planned(request, number, label)
            documents.append(document)
            head = tokenizer.encode(heading(self._schema, document.kind, label)).ids
            capacity = length - 3 - len(head[: length // 4])
            for window, start in enumerate(range(0, len(document.tokens), capacity)[:WINDOWS]):
                body = document.tokens[start : start + capacity]
                ids, begin = laid_out(tokenizer, head, body, length)
                chunks.append(
                    _Chunk(
                        document=len(documents) - 1, number=number, window=window, ids=ids, begin=begin, count=len(body)
                    )
                )
        tokens: list[list[int]] = [[] for _ in documents]
        for start in range(0, len(chunks), self._rows):
            part = chunks[start : start + self._rows]
            for chunk, row in zip(part, self._filled(request, part), strict=False):
                tokens[chunk.document] += row[chunk.begin : chunk.begin + chunk.count].tolist()
        return [self._written(document, own) for document, own in zip(documents, tokens, strict=True)]

    def _planned(self, request: SampleRequest, number: int, label: int) -> _Document:
        key = np.array([int(request.seed), 0], np.uint64)
        rng = np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, number], np.uint64)))
        patient = invented_patient(rng) if self._cohort is None else self._cohort.patient(number, rng)
        told = self._sex_of_label(label)
        if told is not None:
            patient = replace(patient, sex=told)
        template, kind = self._choices[int(rng.integers(len(self._choices)))]
        pieces, tokens = [], list[int]()
        for piece in template.written(patient, rng):
            start = len(tokens)
            if isinstance(piece, Gap):
                tokens += [self._tokenizer.mask] * piece.tokens
            else:
                tokens += self._tokenizer.encode(piece).ids
            pieces.append(_Piece("" if isinstance(piece, Gap) else piece, start, len(tokens)))
        return _Document(kind=kind, patient=patient, pieces=pieces, tokens=tokens, rng=rng)

    @torch.inference_mode()
    def _filled(self, request: SampleRequest, chunks: Sequence[_Chunk]) -> NDArray[np.int64]:
        """Tokens [rows, T] without masks, the chunks' first: always as many rows, so that none changes another's."""
        how = request.notes or NotesRequest()
        randomness = PatientRandomness(int(request.seed))
        padded = [chunks[min(row, len(chunks) - 1)] for row in range(self._rows)]
        numbers = torch.tensor([chunk.number for chunk in padded], device=self._device)
        windows = torch.tensor([chunk.window for chunk in padded], device=self._device)
        rows = torch.from_numpy(np.stack([chunk.ids for chunk in padded]).astype(np.int64)).to(self._device)
        seen = rows != self._tokenizer.pad

        def logits_of(current: Tensor, positions: Tensor) -> Tensor:
            with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._reduced):
                logits: Tensor = self._network(current, seen, positions)
            if self._neighbours is None:
                return logits
            return self._neighbours.added(logits, current, positions, NEIGHBOURS_WEIGHT)

        def uniforms(stream: int) -> Tensor:
            drawn = randomness.uniform(numbers, WINDOWS * self._places, FIRST_STEP + stream)
            own: Tensor = drawn.view(self._rows, WINDOWS, self._places)[torch.arange(self._rows), windows]
            return own

        order = cast(Order, request.sampler)  # the request was checked
        found = unmask(
            logits_of,
            rows,
            rows == self._tokenizer.mask,
            calls=request.steps,
            uniforms=uniforms,
            order=order,
            temperature=float(how.temperature),
            top_k=how.top_k,
            top_p=float(how.top_p),
            forbidden=self._forbidden,
            places=self._places,
        )
        tokens: NDArray[np.int64] = found.cpu().numpy()
        return tokens

    def _sex_of_label(self, label: int) -> str | None:
        """The sex that a label tells, or that it is not told; None: the label is about something else."""
        about = self._schema.label
        if not _SEX.search(f"{about.name} {about.title}"):
            return None
        value = about.values[label].lower()
        return {"f": "female", "m": "male", "w": "female"}.get(value[:1], UNTOLD)

    def _written(self, document: _Document, tokens: list[int]) -> Written:
        """The document: fixed text as it was written, gaps as they were filled, slots filled from public lists."""
        text, words = "", []
        for piece in document.pieces:
            if piece.start >= len(tokens):
                break  # what no window had room for
            if piece.text:
                text += piece.text
                continue
            written = " ".join(self._tokenizer.decode(tokens[piece.start : piece.stop]).replace("\ufffd", "").split())
            written = _agreeing(written, document.patient.sex)
            words.append(written)
            text += written if not text or text[-1].isspace() else f" {written}"
        surrogates = Surrogates(document.rng, document.patient.sex, document.patient.age)
        return Written(
            kind=document.kind, patient=document.patient, words=tuple(words), text=surrogates.fill(_tidied(text))
        )


def _agreeing(words: str, sex: str) -> str:
    """The words with pronouns of the patient's sex: a gap knows little of what another one says."""

    def agree(match: re.Match[str]) -> str:
        found = _PRONOUNS[sex].get(match[0].lower(), match[0])
        return found[:1].upper() + found[1:] if match[0][0].isupper() else found

    return _PRONOUN.sub(agree, words)


def _tidied(text: str) -> str:
    """Without a word twice in a row, a space before a stop, or a stop before a stop: what gaps leave at their ends."""
    return _STOPS.sub("", _SPACES.sub("", _TWICE.sub(r"\1", text)))
