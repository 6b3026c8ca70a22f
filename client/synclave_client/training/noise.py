"""Secret randomness of a site: the coins of batch selection and the noise of every release.

The privacy guarantee assumes that nobody can predict these numbers, so they come from ChaCha20 under a key of the
operating system, never from a plan's seed: two sites with one seed would add noise that cancels in their difference.
Both are float64, because float32 coins miss small selection rates by percents and float32 noise has recognisable gaps.

**Attacks on floating-point noise.** The theorem is about real numbers; a program adds one of finitely many floats, and
which sums are possible depends on the secret.

- Low-order bits. Mironov 2012 (Laplace); Jin et al. 2022, "Are we there yet?" (Gaussian samplers, torch and Opacus
  among them). One published sum can decide between two data sets.
- Predictable generators: Holohan and Braghin 2021, "Secure random sampling in differential privacy", who also combine
  several draws so that a sampler is harder to invert.
- The sum itself: Casacuberta et al. 2022, rounding within a float sum may move it by more than its ideal sensitivity.
- Time: Jin et al. 2022, a sampler that rejects takes a time that tells the noise.

**What stands against them.**

- A cryptographic stream under a fresh key of the operating system for each round.
- float64 noise with 63 bits in the tail (:func:`add_gaussian`).
- No float leaves: a round's update and the marginals are rounded to multiples of 2**-20 *after* the noise, so whatever
  the low-order bits say stays in the vault. A step's noisy sum moves the vault's model, which later steps of the round
  use; only the rounded difference of a whole round goes out. ``tests/training/test_float_structure.py`` plays the
  attack: it always wins against float32 noise, and against float64 noise that is not rounded; here it is at chance.
- Box-Muller rejects nothing: the operations, their order and the memory they touch depend on the length of the vector
  alone, and the patients' data enters by one addition.

**What is not covered.** This is no exact discrete mechanism (Canonne et al. 2020): epsilon is computed for real numbers
and the bounds in :func:`add_gaussian` are for one noised vector; for several steps in a row, where the model of one
feeds the next, they are an argument and not a proof. What rounding does to the gradients' *sum* is the clipping's
matter (:mod:`.private.engine`). An attacker who reads the vault's memory sees everything. A processor may take some
cycles longer for rare arguments of the logarithm or the cosine; these depend on the noise, not on the data.
"""

from __future__ import annotations

import math
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["PatientStreams", "SecretRandomness", "add_gaussian"]

KEY_BYTES: Final = 32
CHACHA_BLOCK_BYTES: Final = 64

CHUNK_VALUES: Final = 2**18
"""Values made at once by a thread, with 3 MiB of scratch. Smaller chunks gain less in cache than they lose to threads
that wait for the interpreter."""

_ZEROS: Final = bytes(8 * CHUNK_VALUES)
"""What is encrypted to get a chunk's key stream. Never written, so it takes no memory."""

_HALF_OF_63: Final = torch.tensor(2.0**-64, dtype=torch.float64)
_HALF_OF_TURN: Final = torch.tensor(math.pi * 2.0**-64, dtype=torch.float64)


def add_gaussian(values: Tensor, words: Tensor, std: float, scratch: Tensor) -> None:
    """Add ``std`` times standard normal numbers, made of uniform integers by Box and Muller 1958.

    Of the integers ``i`` the first half become ``u = |i + 1/2| / 2**63`` in [2**-64, 1] and a radius
    ``sqrt(-2 log u)``, the second half an angle ``pi (i + 1/2) / 2**63``. No integer gives an infinity. ``i`` and its
    complement ``-1 - i`` give one radius and opposite angles: the law is symmetric in sign, up to rounding.

    How far from normal: take ideal numbers that share the leading 64 bits of each uniform with ours.

    - Ours end at ``sqrt(128 log 2) = 9.42`` standard deviations; an ideal radius is beyond with probability 2**-64. In
      2,000 steps of 4.2 million coordinates that adds 2.3e-10 to delta, 0.02 % of a delta of 1e-6. With 53 bits (the
      usual ``random()``, 8.6 standard deviations) it would be 4.7e-7, half of it.
    - For a radius between 1e-6 and 7 (outside: 2.4e-11 of the pairs) neighbouring radii are at most 7e-10 apart. The
      rounding of u, logarithm, root and cosine moves a number by about 1e-15 on average. A release is rounded to cells
      of 2**-20; where one standard deviation of noise is ``s`` in units of the release, a cell is ``2**-20 / s``
      standard deviations wide, so the log-probability of a cell is off by about ``2e-9 s``. Even if all errors of 4.2
      million coordinates had one sign, s = 1e-3 would add 1e-5 to epsilon.

    The inverse normal distribution function of one 53-bit uniform costs the same time, but its tail is a visible
    lattice: beyond 7.6 standard deviations neighbours lie 1e-3 apart.

    Args:
        values: [n] float64, changed in place.
        words: [2 h] int64, h >= n / 2, uniform over all 64-bit integers; destroyed.
        std: standard deviation of the noise.
        scratch: [h] float64, destroyed.
    """
    half = scratch.numel()
    floats = words.view(torch.float64)
    floats.copy_(words)  # in place: each number is read before it is written
    radius, angle = floats[:half], floats[half:]
    torch.add(_HALF_OF_63, radius, alpha=2.0**-63, out=radius)
    radius.abs_().log_().neg_().sqrt_()
    torch.add(_HALF_OF_TURN, angle, alpha=math.pi * 2.0**-63, out=angle)
    torch.cos(angle, out=scratch)
    angle.sin_()
    first, second = values[:half], values[half:]
    scale = math.sqrt(2.0) * std
    first.addcmul_(radius[: first.numel()], scratch[: first.numel()], value=scale)
    second.addcmul_(radius[: second.numel()], angle[: second.numel()], value=scale)


class SecretRandomness:
    """A stream of unpredictable numbers.

    Coins use the key stream of nonce 0. Each call for noise has a nonce of its own, and each chunk of its vector a
    fixed place in that stream: the numbers depend on the key and the order of calls, not on the number of threads.

    Args:
        key: 32 secret bytes, used once. A fixed key is for tests only.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"the key of the randomness must have {KEY_BYTES} bytes")
        self._key = key
        self._stream = self._key_stream(nonce=0, block=0)
        self._noise_calls = 0

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
        """Standard normal numbers [count]."""
        values = np.zeros(count)
        self.add_normal(values, 1.0)
        return values

    def add_normal(self, values: NDArray[np.float64], std: float) -> None:
        """Add ``std`` times independent standard normal numbers in place, on as many threads as torch may use.

        Args:
            values: [n], contiguous and writable.
            std: standard deviation of the noise, in the unit of the values.

        Raises:
            ValueError: if the vector is of another kind or ``std`` is negative or not finite; nothing is added then.
        """
        if values.dtype != np.float64 or values.ndim != 1 or not (values.flags.c_contiguous and values.flags.writeable):
            raise ValueError("noise is added to a contiguous, writable float64 vector")
        if not 0 <= std < math.inf:
            raise ValueError(f"a standard deviation must be finite and not negative, not {std}")
        self._noise_calls += 1
        nonce = self._noise_calls
        vector = torch.from_numpy(values)
        starts = range(0, values.size, CHUNK_VALUES)
        threads = torch.get_num_threads()
        if threads == 1:
            self._add_chunks(vector, std, nonce, starts)
            return
        workers = max(1, min(threads, len(starts)))
        # A worker is one thread, and torch must not start more inside it. The setting holds for the thread that makes
        # it, but new threads and MKL take the last one made: so ours is made again in the end.
        try:
            with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                tasks = [
                    pool.submit(self._add_chunks, vector, std, nonce, starts[worker::workers])
                    for worker in range(workers)
                ]
            for task in tasks:
                task.result()
        finally:
            torch.set_num_threads(threads)

    def _add_chunks(self, vector: Tensor, std: float, nonce: int, starts: range) -> None:
        # Buffers of torch are aligned alike in every thread: vectorised functions then round alike.
        longest = min(CHUNK_VALUES, vector.numel())
        words = torch.empty(longest + longest % 2, dtype=torch.int64)
        stream_bytes = words.numpy().view(np.uint8).data
        scratch = torch.empty(words.numel() // 2, dtype=torch.float64)
        for start in starts:
            values = vector[start : start + CHUNK_VALUES]
            half = (values.numel() + 1) // 2
            stream = self._key_stream(nonce=nonce, block=8 * start // CHACHA_BLOCK_BYTES)
            stream.update_into(_ZEROS[: 16 * half], stream_bytes[: 16 * half])
            add_gaussian(values, words[: 2 * half], std, scratch[:half])

    def _key_stream(self, *, nonce: int, block: int) -> CipherContext:
        # RFC 8439, section 2.4, in OpenSSL's order: the counter of blocks, then the nonce. A nonce of 64 bits leaves a
        # counter of 64 bits, far more than a vector needs: streams of two nonces, and two chunks of one, never meet.
        return Cipher(ChaCha20(self._key, block.to_bytes(8, "little") + nonce.to_bytes(8, "little")), None).encryptor()


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
