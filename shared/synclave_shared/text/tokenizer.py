"""From text to tokens and back: the embedded vocabulary, or that of a published model.

The embedded one is a byte-pair encoding of 8,192 tokens, learnt from public notes (``data/ATTRIBUTION.md``): every text
has tokens, and joining their bytes gives the text back, line breaks and all. Its slots are tokens of their own.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from synclave_shared.canonical import sha256_hex
from synclave_shared.text.slots import SLOTS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = [
    "SPECIALS",
    "Encoded",
    "NoteTokenizer",
    "embedded_digest",
    "embedded_tokenizer",
    "tokenizer_of_merges",
    "unwritable",
]

SPECIALS: Final = ("[PAD]", "[CLS]", "[SEP]", "[MASK]")
"""The first four tokens of the embedded vocabulary."""

_MERGES: Final = Path(__file__).parent / "data" / "merges.txt.xz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Tokens of a text.

    Attributes:
        ids: [n].
        offsets: [n], the characters (start, end) that each stands for.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteTokenizer:
    """A vocabulary and how text is cut by it.

    Attributes:
        backend: of the library ``tokenizers``.
        pad, begin, separator, mask: numbers of the special tokens.
        size: V, entries of the model's vocabulary; some may have no token.
        never_drawn: tokens that no text may get: special ones, slots or what they begin with, parts of characters.
        spaced: whether tokens know nothing of the space before them, as word pieces do not.
    """

    backend: Tokenizer
    pad: int
    begin: int
    separator: int
    mask: int
    size: int
    never_drawn: frozenset[int]
    spaced: bool

    def encode(self, text: str) -> Encoded:
        """Tokens of a text, no special ones added."""
        found = self.backend.encode(text, add_special_tokens=False)
        return Encoded(ids=found.ids, offsets=found.offsets)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some tokens that stand beside one another."""
        return str(self.backend.decode(list(ids), skip_special_tokens=False))

    def tokens_of(self, surfaces: Iterable[str]) -> frozenset[int]:
        """Tokens with which one of these words or phrases begins, with or without a space before it, in any usual case.

        Who never draws them cannot write the surface form, at the price of other words that begin with the same token.
        """
        found = set()
        for surface in surfaces:
            for form in {surface, surface.lower(), surface.upper(), surface.title()}:
                for text in (form, f" {form}"):
                    ids = self.backend.encode(text.rstrip(), add_special_tokens=False).ids
                    # A lone space, where a vocabulary has it, begins any word.
                    found |= {number for number in ids[:1] if self.decode([number]).strip()}
        return frozenset(found)


@cache
def embedded_tokenizer() -> NoteTokenizer:
    """The vocabulary that comes with Synclave."""
    return tokenizer_of_merges(_merges().decode("utf-8"))


def _merges() -> bytes:
    return lzma.decompress(_MERGES.read_bytes())


def embedded_digest() -> str:
    """SHA-256 of the embedded vocabulary, slots included."""
    return sha256_hex("\n".join([*SPECIALS, *SLOTS]).encode() + _merges())


def unwritable(backend: Tokenizer, size: int) -> frozenset[int]:
    """Tokens that are no text by themselves: parts of a character, control characters."""
    found = set()
    for number in range(size):
        text = backend.decode([number], skip_special_tokens=False)
        if "\ufffd" in text or any(letter < " " and letter != "\n" for letter in text):
            found.add(number)
    return frozenset(found)


def tokenizer_of_merges(content: str) -> NoteTokenizer:
    """The embedded kind of vocabulary.

    Args:
        content: a line for each merge, in order: two tokens in the alphabet of bytes, a space between.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    merges = [(first, second) for first, second in (line.split(" ", 1) for line in content.splitlines() if line)]
    slots = [f"[{slot}]" for slot in SLOTS]
    tokens = [*SPECIALS, *slots, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in merges)]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    model: Any = models.BPE(vocab=vocabulary, merges=merges)
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    # Only slots are found in a text: "[PAD]" and the like, should someone write it, is text.
    backend.add_tokens([AddedToken(slot, normalized=False) for slot in slots])
    return NoteTokenizer(
        backend=backend,
        pad=0,
        begin=1,
        separator=2,
        mask=3,
        size=len(vocabulary),
        never_drawn=frozenset(range(len(SPECIALS) + len(slots))) | unwritable(backend, len(vocabulary)),
        spaced=False,
    )
