"""The published way of rewriting (arXiv 2409.09831), as a yardstick: masked words are filled one after the other.

Identifiers are always masked and clinical mentions never, as far as a detector and a finder know them; of the other
words a share. Then in reading order: the network sees half a window before the word, as it is by now, and half a window
behind it, *as it was*; one draw from the six likeliest words. Nothing is forbidden. Their restriction to nouns, verbs
and adjectives is left out, so that both ways write the same number of words, and both draw whole words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from synclave_shared.text.note_plan import NOTE_WORDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from synclave_shared.models.note_lm import NoteLm
    from synclave_shared.text.entities import Entity
    from synclave_shared.text.spans import Span
    from synclave_shared.text.tokenizer import NoteTokenizer

__all__ = ["WordByWord"]

TOP = 6


@dataclass(frozen=True, kw_only=True, eq=False)
class WordByWord:
    """The pipeline.

    Attributes:
        network, tokenizer: the language model.
        tokens: of its window.
        ratio: share of the other words that is masked.
    """

    network: NoteLm
    tokenizer: NoteTokenizer
    tokens: int = 128
    ratio: float = 0.5

    @torch.inference_mode()
    def rewrite(
        self, text: str, spans: Sequence[Span], entities: Sequence[Entity], draws: np.random.Generator
    ) -> tuple[str, int]:
        """The text with other words, and how many calls of the network it took."""
        tokenizer, half = self.tokenizer, (self.tokens - 3) // 2
        chosen = [found.span() for found in NOTE_WORDS.finditer(text) if self._is_masked(found, spans, entities, draws)]
        tokens: list[int] = []
        places = []
        at = 0
        for start, end in [*chosen, (len(text), len(text))]:
            piece = text[at:start]
            tokens += tokenizer.encode(piece if piece.strip() else "\n" if "\n" in piece else "").ids
            places.append(len(tokens))
            tokens += tokenizer.encode(f" {text[start:end]}" if end > start else "").ids
            places.append(len(tokens))
            at = end
        out, at, grown = [], 0, 0
        for (start, end), first, last in zip(chosen, places[::2], places[1::2], strict=False):
            first, last = first + grown, last + grown
            before, behind = tokens[max(0, first - half) : first], tokens[last : last + half]
            row = [tokenizer.begin, *before, tokenizer.mask, *behind, tokenizer.separator]
            ids = torch.tensor([row])
            logits = self.network(ids, torch.ones_like(ids, dtype=torch.bool), torch.tensor([[1 + len(before)]]))
            likeliest, token_of = logits[0, 0].float().masked_fill(self._closed, -torch.inf).topk(TOP)
            weights = likeliest.softmax(0).double().numpy()
            token = int(token_of[draws.choice(TOP, p=weights / weights.sum())])
            tokens[first:last] = [token]
            grown += 1 - (last - first)
            out += [text[at:start], tokenizer.decode([token]).strip()]
            at = end
        return "".join([*out, text[at:]]), len(chosen)

    def _is_masked(
        self,
        word: re.Match[str],
        spans: Sequence[Span],
        entities: Sequence[Entity],
        draws: np.random.Generator,
    ) -> bool:
        start, end = word.span()
        drawn = draws.random() < self.ratio
        if any(span.start < end and start < span.end for span in spans):
            return True
        return drawn and not any(one.start < end and start < one.end for one in entities)

    @cached_property
    def _closed(self) -> torch.Tensor:
        size = self.network.reader.model.config.vocab_size  # type: ignore[union-attr]
        closed = torch.ones(int(size), dtype=torch.bool)
        for number in range(self.tokenizer.size):
            text = self.tokenizer.decode([number])
            if number not in self.tokenizer.never_drawn and text[:1] == " " and text.strip().isalnum():
                closed[number] = False
        return closed
