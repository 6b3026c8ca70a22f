"""Writing a note's masked words with a masked language model, many notes and many places per call of the network.

Each masked word is one place, and what may stand there is a whole word of the language (or a number): a model of parts
of words can so neither spell a name out nor break the layout. Words that are identifiers in the patient's notes are
forbidden in all of them; a word that has to change is forbidden its old form. No model writes a finding or a drug into
a real patient's note: clinical terms stand only where one stood that was not kept.

Shapes: ``R`` chunks, ``T`` tokens of each, ``V`` vocabulary, ``F`` forms of a word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor

from synclave_shared.diffusion.unmasking import Order, unmask
from synclave_shared.errors import ConfigurationError
from synclave_shared.models.note_lm import NoteLm
from synclave_shared.text.chunks import laid_out
from synclave_shared.text.entities import single_word_terms
from synclave_shared.text.phi.lexicon import word_lists
from synclave_shared.text.phi.locale import Locale
from synclave_shared.text.polarity import POLARITY
from synclave_shared.text.tokenizer import NoteTokenizer
from synclave_shared.text.view import folded

__all__ = ["Blank", "Drawing", "FillTask", "WordFiller"]

FEWEST_WORDS: Final = 200
"""Whole words that a vocabulary must have of the notes' language."""

_WORDS, _NUMBERS, _MEDICAL = range(3)
"""What may be drawn for a blank: words of the language, numbers, words with clinical terms among them."""

TILE: Final = {"cpu": 8}
GPU_TILE: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How words are drawn; see :func:`synclave_shared.diffusion.unmasking.unmask`.

    Attributes:
        precision: what the network computes in; bfloat16 is more than twice as fast where the machine knows it.
    """

    calls: int = 10
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 0.95
    order: Order = "confidence"
    precision: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True, slots=True)
class Blank:
    """A masked word: what stood there, whether it has to change, and whether a clinical term may stand there."""

    word: str
    changed: bool
    medical: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FillTask:
    """A document: fixed text and blanks in order.

    Attributes:
        head: what its chunks begin with.
        pieces: fixed text (slots in it), and blanks.
        forbidden: folded words that stand in no blank.
        uniforms: (chunk, stream) -> generator of its random numbers.
    """

    head: str
    pieces: Sequence[str | Blank]
    forbidden: frozenset[str]
    uniforms: Callable[[int, int], np.random.Generator]


class WordFiller:
    """A language model that fills blanks.

    Args:
        network: on its device.
        tokenizer: its vocabulary.
        locale: language of the notes.
        tokens: T.
        drawing: how.

    Raises:
        ConfigurationError: if the vocabulary does not have the words of the language.
    """

    def __init__(
        self, network: NoteLm, tokenizer: NoteTokenizer, locale: Locale, tokens: int, drawing: Drawing
    ) -> None:
        if drawing.precision == "bfloat16":
            network = deepcopy(network).to(torch.bfloat16)
        self._network, self._tokenizer, self._tokens, self._drawing = network.eval(), tokenizer, tokens, drawing
        self._device = next(network.parameters()).device
        self._size = int(_head(network)(torch.zeros(1, 1, dtype=torch.long, device=self._device)).shape[-1])
        self._texts = _texts(tokenizer)
        ordinary = word_lists(locale.ordinary)
        self._forms: dict[str, list[int]] = {}
        terms = single_word_terms()
        allowed = torch.zeros(3, self._size, dtype=torch.bool)
        for number, text in self._texts.items():
            if number >= self._size or number in tokenizer.never_drawn:
                continue
            key = folded(text)
            if text.isdecimal():
                allowed[_NUMBERS, number] = True
            elif text.isalpha() and key in ordinary and key not in POLARITY and (len(key) > 1 or key in "ai"):
                allowed[_MEDICAL, number] = True
                allowed[_WORDS, number] = key not in terms
            self._forms.setdefault(key, []).append(number)
        self.words = len({folded(self._texts[number]) for number in allowed[_WORDS].nonzero()[:, 0].tolist()})
        if self.words < FEWEST_WORDS:
            raise ConfigurationError(
                expected=f"a language model with at least {FEWEST_WORDS} whole words of the language {locale.code}",
                found=f"{self.words} in its vocabulary",
                remedy="Use a model whose vocabulary was made for that language.",
            )
        # What nothing may be drawn from is not drawn from: a vocabulary without numbers writes words.
        allowed[_NUMBERS] = allowed[_NUMBERS] if bool(allowed[_NUMBERS].any()) else allowed[_WORDS]
        self._allowed = allowed.to(self._device)

    def fill(self, tasks: Sequence[FillTask]) -> list[list[str]]:
        """The words of each task's blanks. A task's result does not depend on the others, but for rounding."""
        rows: list[np.ndarray] = []
        owners: list[tuple[int, int]] = []
        blanks: list[list[tuple[int, int, Blank]]] = []
        found: list[list[str]] = []
        for number, task in enumerate(tasks):
            found.append([""] * sum(isinstance(piece, Blank) for piece in task.pieces))
            for chunk, (row, places) in enumerate(self._chunks(task)):
                if places:
                    rows.append(row)
                    owners.append((number, chunk))
                    blanks.append(places)
        tile = TILE.get(self._device.type, GPU_TILE)
        # Rows with as many blanks stand together: a call costs as much as its longest row.
        order = sorted(range(len(rows)), key=lambda place: len(blanks[place]))
        for start in range(0, len(order), tile):
            chosen = order[start : start + tile]
            filled = self._tile(
                tasks,
                [rows[each] for each in chosen],
                [owners[each] for each in chosen],
                [blanks[each] for each in chosen],
            )
            for each, ids in zip(chosen, filled.tolist(), strict=True):
                for place, blank, _ in blanks[each]:
                    found[owners[each][0]][blank] = self._texts[ids[place]]
        return found

    def _chunks(self, task: FillTask) -> list[tuple[np.ndarray, list[tuple[int, int, Blank]]]]:
        """Rows of T tokens, and of each its blanks: (place in the row, number in the task, blank)."""
        head = self._tokenizer.encode(task.head).ids[: self._tokens // 4]
        room = self._tokens - 3 - len(head)
        tokens: list[int] = []
        blanks: dict[int, tuple[int, Blank]] = {}
        for piece in task.pieces:
            if isinstance(piece, Blank):
                blanks[len(tokens)] = (len(blanks), piece)
                tokens.append(self._tokenizer.mask)
            elif piece.strip():
                tokens += self._tokenizer.encode(piece).ids
            elif "\n" in piece:
                tokens += self._tokenizer.encode("\n").ids
        found = []
        for start in range(0, len(tokens), room):
            row, begin = laid_out(self._tokenizer, head, tokens[start : start + room], self._tokens)
            inside = range(start, min(start + room, len(tokens)))
            found.append((row, [(begin + at - start, *blanks[at]) for at in inside if at in blanks]))
        return found

    def _tile(
        self,
        tasks: Sequence[FillTask],
        rows: Sequence[np.ndarray],
        owners: Sequence[tuple[int, int]],
        blanks: Sequence[list[tuple[int, int, Blank]]],
    ) -> Tensor:
        ids = torch.from_numpy(np.stack(rows).astype(np.int64)).to(self._device)
        seen = ids != self._tokenizer.pad
        masked = torch.zeros(ids.shape, dtype=torch.bool)
        kinds = torch.zeros(ids.shape, dtype=torch.long)
        old = [
            [self._forms.get(folded(one.word), []) if one.changed else [] for _, _, one in places] for places in blanks
        ]
        most = max([1, *(len(forms) for row in old for forms in row)])
        # Token `size` stands for none: one more column takes what is written there.
        banned = torch.full((*ids.shape, most), self._size, dtype=torch.long)
        forbidden = torch.zeros(len(rows), self._size, dtype=torch.bool)
        for row, places in enumerate(blanks):
            for (place, _, blank), forms in zip(places, old[row], strict=True):
                masked[row, place] = True
                kinds[row, place] = _NUMBERS if blank.word.isdecimal() else _MEDICAL if blank.medical else _WORDS
                banned[row, place, : len(forms)] = torch.tensor(forms, dtype=torch.long)
            for word in tasks[owners[row][0]].forbidden:
                forbidden[row, self._forms.get(word, [])] = True
        masked, kinds, banned, forbidden = (one.to(self._device) for one in (masked, kinds, banned, forbidden))
        width = max(map(len, blanks))

        def logits_of(current: Tensor, positions: Tensor) -> Tensor:
            logits: Tensor = self._network(current, seen, positions).float()
            logits = logits.masked_fill(~self._allowed[kinds.gather(1, positions)], -torch.inf)
            there = banned.gather(1, positions[..., None].expand(-1, -1, most))
            wider = torch.cat([logits, logits[..., :1]], dim=-1)
            return wider.scatter(-1, there, -torch.inf)[..., :-1]

        def uniforms(stream: int) -> Tensor:
            drawn = [tasks[task].uniforms(chunk, stream).random(width) for task, chunk in owners]
            return torch.from_numpy(np.stack(drawn).clip(1e-12, 1 - 1e-12)).to(self._device)

        how = self._drawing
        return unmask(
            logits_of,
            ids,
            masked,
            calls=how.calls,
            uniforms=uniforms,
            order=how.order,
            temperature=how.temperature,
            top_k=how.top_k,
            top_p=how.top_p,
            forbidden=forbidden,
        ).cpu()


def _head(network: NoteLm) -> Callable[[Tensor], Tensor]:
    def logits(ids: Tensor) -> Tensor:
        with torch.inference_mode():
            found: Tensor = network(ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids))
        return found

    return logits


def _texts(tokenizer: NoteTokenizer) -> dict[int, str]:
    """Text of every token that can be a word of its own, without the space before it."""
    found = {}
    for number in range(tokenizer.size):
        raw = tokenizer.backend.id_to_token(number)
        # A piece that continues a word is none.
        if raw is None or raw.startswith("##"):
            continue
        text = tokenizer.decode([number]).strip()
        if text.isalpha() or text.isdecimal():
            found[number] = text
    return found
