"""Choices that a secret key makes: the same for the same words of the same patient, and no guess for anybody else."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["KeyedDraws"]


@dataclass(frozen=True, slots=True)
class KeyedDraws:
    """HMAC-SHA-256 of (patient, words) as numbers.

    Attributes:
        key: the site's secret, at least 16 bytes. It is no part of what is printed.
        patient: whose choices they are.
    """

    key: bytes = field(repr=False)
    patient: str = field(repr=False)

    def digest(self, *words: str | int) -> bytes:
        """32 bytes for some words."""
        message = "\0".join(["synclave.rewrite.v1", self.patient, *map(str, words)])
        return hmac.new(self.key, message.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()

    def number(self, below: int, *words: str | int) -> int:
        """A number from 0 to ``below`` - 1."""
        return int.from_bytes(self.digest(*words), "big") % below

    def choice(self, choices: Sequence[str], *words: str | int) -> str:
        """One of ``choices``."""
        return choices[self.number(len(choices), *words)]

    def share(self, *words: str | int) -> float:
        """A number in [0, 1)."""
        return self.number(2**53, *words) / 2**53

    def generator(self, *words: str | int) -> np.random.Generator:
        """A stream of random numbers for some words."""
        return np.random.Generator(np.random.Philox(int.from_bytes(self.digest(*words)[:16], "big")))
