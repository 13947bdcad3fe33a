"""Random streams that the guarantee rests on: AES-128 in counter mode, keyed by the OS.

Noise and sampling never touch torch's or numpy's global generators, nor any user seed: a seed
that is published (as training frameworks do) would let anyone subtract the noise again.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from randomgen import AESCounter

_CHUNK = 1 << 18  # 2 MiB of float64: stays in cache, bounds the extra memory

# FIPS-197, Appendix C.1: AES-128 of this plaintext under the key 000102…0f.
_KEY = bytes(range(16))
_PLAINTEXT = bytes.fromhex("00112233445566778899aabbccddeeff")
_CIPHERTEXT = bytes.fromhex("69c4e0d86a7b0430d8cdb78070b4c55a")


class RandomSource(Protocol):
    """Gives out independent random streams, one per use."""

    @property
    def secure(self) -> bool:
        """Whether an adversary without this process's memory cannot predict the streams."""
        ...

    @property
    def description(self) -> str:
        """What the statement says of it."""
        ...

    def key(self) -> int:
        """The key of a stream of its own, 128 bits, independent of all earlier ones."""
        ...

    def stream_of(self, key: int) -> np.random.Generator:
        """The stream of a key: the same in every process that holds it."""
        ...

    def stream(self) -> np.random.Generator:
        """A stream of its own, independent of all earlier ones."""
        ...


class _Keyed(ABC):
    @abstractmethod
    def key(self) -> int:
        """The key of a stream of its own, 128 bits, independent of all earlier ones."""

    @abstractmethod
    def stream_of(self, key: int) -> np.random.Generator:
        """The stream of a key: the same in every process that holds it."""

    def stream(self) -> np.random.Generator:
        """A stream of its own, independent of all earlier ones."""
        return self.stream_of(self.key())


class SecureSource(_Keyed):
    """AES-128-CTR with a fresh 128-bit key from the operating system for every stream.

    Streams are never stored: a checkpoint that held one would replay its noise on resume. A
    forked process gets keys of its own, since each key is drawn when the stream is.

    Raises:
        RuntimeError: If the generator fails its known-answer test.
    """

    secure = True
    description = "AES-128-CTR, keyed by the operating system for every draw"

    def __init__(self) -> None:
        known_answer_test()

    def key(self) -> int:
        """A fresh key."""
        return secrets.randbits(128)

    def stream_of(self, key: int) -> np.random.Generator:
        """AES-128-CTR under this key."""
        bits: Any = AESCounter(key=key)
        return np.random.Generator(bits)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("random sources are never pickled: a copy would repeat its noise")


class InsecureSource(_Keyed):
    """Reproducible streams for tests. A run that uses it is not private.

    Args:
        seed: Any whole number >= 0.
    """

    secure = False
    description = "seeded, reproducible: NOT PRIVATE"

    def __init__(self, seed: int) -> None:
        self._sequence = np.random.SeedSequence(seed)

    def key(self) -> int:
        """The next key of the seed's sequence."""
        low, high = self._sequence.spawn(1)[0].generate_state(2, np.uint64)
        return int(high) << 64 | int(low)

    def stream_of(self, key: int) -> np.random.Generator:
        """A stream seeded by this key."""
        return np.random.Generator(np.random.PCG64DXSM(key))


def make_source(insecure_seed: int | None = None) -> RandomSource:
    """The secure source, or a reproducible one that marks the run as not private."""
    return SecureSource() if insecure_seed is None else InsecureSource(insecure_seed)


def known_answer_test() -> None:
    """Check the block cipher against FIPS-197, Appendix C.1.

    Raises:
        RuntimeError: If this build computes something else than AES-128.
    """
    generator = AESCounter(
        key=int.from_bytes(_KEY, "little"), counter=int.from_bytes(_PLAINTEXT, "little")
    )
    if np.asarray(generator.random_raw(2), dtype="<u8").tobytes() != _CIPHERTEXT:
        raise RuntimeError(
            "the random generator fails its known-answer test (FIPS-197 C.1): "
            "this build of randomgen must not be used for privacy"
        )


def hardened_normal(count: int, stream: np.random.Generator) -> NDArray[np.float64]:
    """Standard normal float64 samples, each the sum of four normals, halved; shape (count,).

    So no single output reveals the generator's state, nor can a sample be told by its last bits
    (Holohan and Braghin, "Secure Random Sampling in Differential Privacy", 2021, section 4).
    """
    out = np.empty(count)
    for start in range(0, count, _CHUNK):
        part = out[start : start + _CHUNK]
        stream.standard_normal(out=part)
        for _ in range(3):
            part += stream.standard_normal(len(part))
        part *= 0.5
    return out
