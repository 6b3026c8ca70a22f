"""Secret randomness of a site: the coins of batch selection and the noise of every release.

The privacy guarantee assumes that nobody can predict these numbers, so they come from ChaCha20 under a key of the
operating system, never from a plan's seed: two sites with one seed would add noise that cancels in their difference.
Both are float64, because float32 coins miss small selection rates by percents and float32 noise has recognisable gaps.
"""

from __future__ import annotations

import secrets
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

__all__ = ["PatientStreams", "SecretRandomness"]

KEY_BYTES: Final = 32
CHUNK_VALUES: Final = 2**18
"""Values made at once: 2 MiB of key stream, small enough to stay in cache through the arithmetic."""


class SecretRandomness:
    """A stream of unpredictable numbers.

    Args:
        key: 32 secret bytes, used once. A fixed key is for tests only.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"the key of the randomness must have {KEY_BYTES} bytes")
        self._stream = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()

    @classmethod
    def from_os(cls) -> SecretRandomness:
        """A fresh stream, keyed by the operating system."""
        return cls(secrets.token_bytes(KEY_BYTES))

    def integers(self, count: int) -> NDArray[np.uint64]:
        """Uniform 64-bit integers [count]."""
        return np.frombuffer(self._stream.update(bytes(8 * count)), dtype="<u8")

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Uniform multiples of 2**-53 in [0, 1), [count]."""
        return (self.integers(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def normal(self, count: int) -> NDArray[np.float64]:
        """Standard normal numbers [count] by Box-Muller; the tails reach 8.5 standard deviations."""
        values = np.empty(count + count % 2)
        for start in range(0, values.size, CHUNK_VALUES):
            part = values[start : start + CHUNK_VALUES]
            half = part.size // 2
            # 1 - u lies in (0, 1]: the logarithm is finite.
            radius = np.sqrt(-2.0 * np.log1p(-self.uniform(half)))
            angle = (2.0 * np.pi) * self.uniform(half)
            part[:half] = radius * np.cos(angle)
            part[half:] = radius * np.sin(angle)
        return values[:count]


class PatientStreams:
    """Diffusion randomness (noise levels, noise, hidden labels): an own stream of numbers for each patient and step.

    Philox (Salmon et al. 2011) under a secret key of 128 bits; the upper half of its counter is (step, patient), so no
    patient's numbers depend on which others the site has, and no two streams overlap.

    Why the accounting may ignore these numbers: fix the stream of every possible patient, independently of the data.
    Then a step is a fixed function of each patient's own record, clipped to C: the Poisson-selected Gaussian mechanism,
    on any two neighbouring data sets the same streams for the common patients. Its privacy bound holds for each value
    of the streams and hence for their mixture. The bound would hold even if the streams were known; with a secret key
    nobody can enumerate them to sharpen an attack within it.

    Args:
        randomness: where the key comes from.
    """

    def __init__(self, randomness: SecretRandomness) -> None:
        self._key = randomness.integers(2)

    def draw(self, step: int, rows: NDArray[np.int64], normals: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """A uniform number [B] and standard normal numbers [B, normals] for each of the patients ``rows`` [B]."""
        coins = np.empty(len(rows))
        values = np.empty((len(rows), normals), np.float32)
        for place, row in enumerate(rows):
            philox = np.random.Philox(key=self._key, counter=np.array([0, 0, step, row], np.uint64))
            generator = np.random.Generator(philox)
            coins[place] = generator.random()
            generator.standard_normal(out=values[place], dtype=np.float32)
        return coins, values
