"""Scores of one arm's outputs with one seed: plain numbers, each a mean or a count over its notes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.notes.corpora import Note
from bench.notes.detection import record_of
from bench.notes.leak_count import LEAKS, survivals
from bench.notes.rewriting_arms import TOKENS, Outputs
from synclave_server.evaluation.notes.diversity import distinct_n, self_bleu
from synclave_server.evaluation.notes.fluency import reading_ease
from synclave_server.evaluation.notes.ngrams import CountedWords
from synclave_server.evaluation.notes.preserved import entity_preservation, flips
from synclave_shared.models.note_lm import NoteLm
from synclave_shared.text.chunks import laid_out
from synclave_shared.text.entities import Entity, EntityFinder, shipped_entity_network
from synclave_shared.text.leak_gate import longest_overlap
from synclave_shared.text.linkage import linkage_rate
from synclave_shared.text.phi import Detector
from synclave_shared.text.tokenizer import NoteTokenizer

__all__ = ["Scorer", "bootstrap", "variety"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scorer:
    """What outputs are scored with.

    Attributes:
        judge: counted words of notes that are neither test notes nor the language model's.
        everyone: texts by name of all notes among which a source is looked for.
        detector: of a site.
        network, tokenizer: the language model, for an attacker's embedding.
    """

    judge: CountedWords
    everyone: Mapping[str, str]
    detector: Detector
    network: NoteLm
    tokenizer: NoteTokenizer

    def __post_init__(self) -> None:
        object.__setattr__(self, "mentions", cache(EntityFinder(network=shipped_entity_network()).find))

    def scores(self, outputs: Outputs, notes: Sequence[Note]) -> dict[str, Any]:
        """Everything but what compares seeds."""
        written = [place for place, text in enumerate(outputs.texts) if text is not None]
        texts = [str(outputs.texts[place]) for place in written]
        sources = [outputs.sources[place] for place in written]
        found: dict[str, Any] = {
            "notes": len(outputs.texts),
            "refused": len(outputs.texts) - len(written),
            "rejected_tries": dict(Counter(reason for one in outputs.rejected for reason in one)),
            "calls": outputs.calls,
            "fill_s": outputs.fill_s,
            "whole_s": outputs.whole_s,
        }
        found |= self._leaks([notes[place] for place in written], texts)
        before = [self._mentions(text) for text in sources]
        after = [self._mentions(text) for text in texts]
        kept = [
            entity_preservation([_spans(text, one)], [_spans(new, other)])
            for text, one, new, other in zip(sources, before, texts, after, strict=True)
        ]
        counts = np.array([(one.source, one.output, one.shared) for one in kept], float).reshape(-1, 3)
        turned = []
        for at, text, one, new, other in zip(written, sources, before, texts, after, strict=True):
            if outputs.kept[at]:
                # Where each mention went is known, and need not be found again.
                one, other = _moved(one, outputs.kept[at], outputs.kept_there[at])
            turned.append(flips(text, one, new, other))
        flipped = np.array([(one.findings, one.negation, one.side, one.either) for one in turned], float).reshape(-1, 4)
        found |= {
            "entity_f1": _f1(counts.sum(0)),
            "entity_f1_interval": bootstrap(counts, _f1),
            "entity_recall": counts.sum(0)[2] / counts.sum(0)[0],
            "mentions_there": self._there([notes[place] for place in written], texts),
            "findings": int(flipped.sum(0)[0]),
            "negation_flips": flipped.sum(0)[1] / flipped.sum(0)[0],
            "side_flips": flipped.sum(0)[2] / flipped.sum(0)[0],
            "flips": flipped.sum(0)[3] / flipped.sum(0)[0],
            "flips_interval": bootstrap(flipped, lambda sums: sums[3] / sums[0]),
            "nats": self.judge.nats(texts),
            "nats_of_sources": self.judge.nats(sources),
            "reading_ease": float(np.mean([reading_ease(text) for text in texts])),
            "reading_ease_of_sources": float(np.mean([reading_ease(text) for text in sources])),
            "distinct_2": distinct_n(texts[:8], 2),
            "linkage_words": linkage_rate(
                list(self.everyone.values()),
                [dict(zip(outputs.names, outputs.texts, strict=True)).get(name) for name in self.everyone],
            ),
            "everyone": len(self.everyone),
        }
        if outputs.kept and any(outputs.kept):
            runs = [
                longest_overlap(
                    outputs.sources[at],
                    [(a, b) for a, b in outputs.kept[at]],
                    str(outputs.texts[at]),
                    [(a, b) for a, b in outputs.kept_there[at]],
                )
                for at in written
            ]
            found["longest_run"] = max(runs)
        found["longest_run_kept_too"] = max(
            longest_overlap(source, (), text, ()) for source, text in zip(sources, texts, strict=True)
        )
        return found

    def linkage_by_embedding(self, outputs: Outputs, sources: NDArray[np.float64], names: Sequence[str]) -> float:
        """Share of outputs whose nearest source by the mean hidden state is their own.

        Args:
            outputs: of an arm.
            sources: embeddings of all notes, see :meth:`embeddings`.
            names: of those notes.
        """
        written = [(name, text) for name, text in zip(outputs.names, outputs.texts, strict=True) if text is not None]
        likeness = self.embeddings([text for _, text in written]) @ sources.T
        own = [names.index(name) for name, _ in written]
        return float(np.mean(likeness.argmax(1) == np.array(own)))

    @torch.inference_mode()
    def embeddings(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Mean hidden states of the last layer, centred on what all notes share, of length one [notes, width]."""
        model: Any = self.network.reader.model
        found = []
        for text in texts:
            ids, room = self.tokenizer.encode(text).ids, TOKENS - 3
            rows = [laid_out(self.tokenizer, (), ids[at : at + room], TOKENS)[0] for at in range(0, len(ids), room)]
            tokens = torch.from_numpy(np.stack(rows).astype(np.int64))
            seen = tokens != self.tokenizer.pad
            hidden = model.base_model(tokens, attention_mask=seen.long()).last_hidden_state
            found.append((hidden[seen].mean(0)).double().numpy())
        points = np.stack(found)
        if not hasattr(self, "_centre"):
            # The first call is for the sources: an attacker knows what all notes share.
            object.__setattr__(self, "_centre", points.mean(0))
        points = points - self._centre  # type: ignore[attr-defined]
        return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True))

    def _mentions(self, text: str) -> list[Entity]:
        return list(self.mentions(text))  # type: ignore[attr-defined]

    def _there(self, notes: Sequence[Note], texts: Sequence[str]) -> float:
        """Share of the mentions outside gold identifiers whose words stand in the output."""
        found = []
        for note, text in zip(notes, texts, strict=True):
            plain = " ".join(text.casefold().split())
            found += [
                " ".join(note.text[one.start : one.end].casefold().split()) in plain
                for one in self._mentions(note.text)
                if not any(gold.start < one.end and one.start < gold.end for gold in note.gold)
            ]
        return float(np.mean(found))

    def _leaks(self, notes: Sequence[Note], texts: Sequence[str]) -> dict[str, Any]:
        total, counts, which = 0, Counter[str](), []
        for note, text in zip(notes, texts, strict=True):
            spans = self.detector.of_patient(record_of(note)).detect(note.text)
            number, kinds, strings = survivals(note, spans, text)
            total += number
            counts += kinds
            which += [[note.name, *one] for one in strings]
        return {"gold": total, "leaks": {kind: counts[kind] for kind in LEAKS}, "leaked": which}


def _moved(
    mentions: Sequence[Entity], kept: Sequence[Sequence[int]], there: Sequence[Sequence[int]]
) -> tuple[list[Entity], list[Entity]]:
    """The mentions that were kept whole, and where they stand in the output."""
    starts = {start: place for place, (start, _) in enumerate(kept)}
    ends = {end: place for place, (_, end) in enumerate(kept)}
    whole = [one for one in mentions if one.start in starts and one.end in ends]
    return whole, [replace(one, start=there[starts[one.start]][0], end=there[ends[one.end]][1]) for one in whole]


def variety(seeds: Sequence[Outputs]) -> float:
    """Mean self-BLEU of the rewritings of each note, over notes that every seed wrote."""
    by_name = [dict(zip(one.names, one.texts, strict=True)) for one in seeds]
    shared = [name for name in by_name[0] if all(one.get(name) for one in by_name)][:8]
    return float(np.mean([self_bleu([str(one[name]) for one in by_name]) for name in shared]))


def bootstrap(rows: NDArray[np.float64], value: Any, rounds: int = 500) -> tuple[float, float]:
    """95 % interval of ``value`` of the rows' sums, over notes."""
    generator = np.random.default_rng(0)
    drawn = [value(rows[generator.integers(0, len(rows), len(rows))].sum(0)) for _ in range(rounds)]
    return float(np.nanpercentile(drawn, 2.5)), float(np.nanpercentile(drawn, 97.5))


def _f1(sums: NDArray[np.float64]) -> float:
    both = sums[0] + sums[1]
    return float(2 * sums[2] / both) if both else math.nan


def _spans(text: str, entities: Sequence[Entity]) -> tuple[str, list[tuple[int, int]]]:
    return text, [(one.start, one.end) for one in entities]
