"""How texts become what networks take: hashed n-grams, tokens, or vectors of the user's own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from evometa.errors import TaskError
from evometa.task.cache import cached

CHUNK = 1024  # texts that are encoded together
BASE = np.uint64(0x100000001B3)
MIX = np.uint64(0x9E3779B97F4A7C15)
Array = npt.NDArray[Any]


class Encoder(Protocol):
    """Makes an array of texts: a frozen dataclass that travels to workers."""

    @property
    def masked(self) -> bool:
        """Whether the array holds tokens, below 0 where a text has ended."""
        ...

    def encode(self, texts: Sequence[str]) -> Array:
        """Return an array of shape `(texts, *shape)`, float32 or int64.

        Raises:
            TaskError: if a text cannot be encoded; names its place.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Return name and arguments as plain data."""
        ...


@dataclass(frozen=True)
class Grams:
    """Counts of hashed character n-grams, of mean square 1 in each text: float32, `(texts, size)`.

    Each n-gram of the text in small letters adds 1 or -1, as its hash says, to the feature that its
    hash says; counts are scaled together. It needs nothing else, and knows no language.

    Attributes:
        size: features.
        least: characters of an n-gram at least, and
        most: at most.
    """

    size: int = 512
    least: int = 2
    most: int = 4

    def __post_init__(self) -> None:
        if not (self.size >= 1 and 1 <= self.least <= self.most):
            raise TaskError(f"`size >= 1` and `1 <= least <= most` must hold, but got {self}")

    @property
    def masked(self) -> bool:
        """They are vectors."""
        return False

    def encode(self, texts: Sequence[str]) -> Array:
        """Return the features of texts."""
        parts = [self._some(texts[start : start + CHUNK]) for start in range(0, len(texts), CHUNK)]
        return np.concatenate([np.zeros((0, self.size), np.float32), *parts])

    def describe(self) -> dict[str, Any]:
        """Return name and arguments."""
        return {"name": "Grams", **asdict(self)}

    def _some(self, texts: Sequence[str]) -> Array:
        coded = [_codes(f" {text.lower()} ") for text in texts]
        owners = np.repeat(np.arange(len(coded)), [len(each) for each in coded])
        codes = np.concatenate(coded).astype(np.uint64) + np.uint64(1)
        found = np.zeros(len(coded) * self.size)
        hashes = np.zeros(len(codes), np.uint64)
        for length in range(1, self.most + 1):
            count = len(codes) - length + 1
            if count < 1:
                break
            hashes = hashes[:count] * BASE + codes[length - 1 :]
            if length < self.least:
                continue
            inside = owners[:count] == owners[length - 1 :]
            mixed = hashes[inside] * MIX
            mixed ^= mixed >> np.uint64(29)
            mixed *= MIX
            where = (mixed >> np.uint64(33)) % np.uint64(self.size)
            sign = 1.0 - 2.0 * ((mixed >> np.uint64(32)) & np.uint64(1)).astype(float)
            places = owners[:count][inside] * self.size + where.astype(np.int64)
            found += np.bincount(places, sign, len(found))
        counts = found.reshape(len(coded), self.size)
        norm = np.sqrt(np.square(counts).mean(1, keepdims=True))
        return (counts / np.where(norm > 0, norm, 1)).astype(np.float32)


@dataclass(frozen=True)
class Tokens:
    """Tokens, padded to one length: int64, `(texts, length)`, for networks that embed them.

    Inputs of the network are `{"tokens": ..., "mask": ...}`.

    Attributes:
        length: tokens of a text; longer ones are cut.
        vocabulary: how many tokens there are, so what `nn.Embedding` needs.
        tokenizer: returns the tokens of a text, whole numbers from 0 to less than `vocabulary`;
            default its characters, by their number modulo `vocabulary`.
    """

    length: int = 128
    vocabulary: int = 256
    tokenizer: Callable[[str], Sequence[int]] | None = None

    def __post_init__(self) -> None:
        if not (self.length >= 1 and self.vocabulary >= 1):
            raise TaskError(f"`length >= 1` and `vocabulary >= 1` must hold, but got {self}")

    @property
    def masked(self) -> bool:
        """They end where the text ends."""
        return True

    def encode(self, texts: Sequence[str]) -> Array:
        """Return tokens, -1 where a text has ended.

        Raises:
            TaskError: if a token is none, or beyond the vocabulary.
        """
        found = np.full((len(texts), self.length), -1, np.int64)
        for place, text in enumerate(texts):
            own = self._tokens(text, place)
            found[place, : len(own)] = own
        return found

    def describe(self) -> dict[str, Any]:
        """Return name and arguments; a tokenizer is known by its name and by the tokens."""
        own = {"length": self.length, "vocabulary": self.vocabulary}
        name = getattr(self.tokenizer, "__name__", type(self.tokenizer).__name__)
        return {"name": "Tokens", **own, "tokenizer": None if self.tokenizer is None else name}

    def _tokens(self, text: str, place: int) -> Array:
        if self.tokenizer is None:
            return _codes(text[: self.length]).astype(np.int64) % self.vocabulary
        found = np.array(self.tokenizer(text)).reshape(-1)[: self.length]
        if not len(found):
            return found.astype(np.int64)
        if found.dtype.kind not in "iu":
            raise TaskError(
                f"the tokenizer must return whole numbers, but for text {place} (from 0) it "
                f"returned {found.dtype}"
            )
        odd = found[(found < 0) | (found >= self.vocabulary)]
        if len(odd):
            raise TaskError(
                f"tokens must be from 0 to less than the vocabulary, {self.vocabulary}, but text "
                f"{place} (from 0) has {odd[0]}; raise `vocabulary`"
            )
        return found.astype(np.int64)


@dataclass(frozen=True)
class Vectors:
    """Vectors of a frozen encoder, computed once and kept in the cache: float32, `(texts, size)`.

    Attributes:
        function: returns an array of shape `(texts, size)` for a list of texts.
        name: of the encoder and its version: with the texts, it says whether what is in the cache
            still holds.
    """

    function: Callable[[list[str]], Any] = field(compare=False)
    name: str

    @property
    def masked(self) -> bool:
        """They are vectors."""
        return False

    def encode(self, texts: Sequence[str]) -> Array:
        """Return the vectors of texts.

        Raises:
            TaskError: if the function does not return one finite vector a text.
        """
        digest = hashlib.sha256(f"{self.name}\0".encode())
        for text in texts:
            own = text.encode("utf-8", "surrogatepass")
            digest.update(len(own).to_bytes(8, "little") + own)

        def make() -> dict[str, Array]:
            parts = [self._some(texts, start) for start in range(0, len(texts), CHUNK)]
            widths = {part.shape[1] for part in parts}
            if len(widths) > 1:
                raise TaskError(
                    f"vectors of {self.name!r} must have one size, got {sorted(widths)}"
                )
            return {"vectors": np.concatenate([*parts])}

        return cached(f"vectors-{digest.hexdigest()[:24]}", make)["vectors"]

    def describe(self) -> dict[str, Any]:
        """Return the name."""
        return {"name": "Vectors", "of": self.name}

    def _some(self, texts: Sequence[str], start: int) -> Array:
        some = list(texts[start : start + CHUNK])
        given = self.function(some)
        found = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
        if found.ndim != 2 or len(found) != len(some) or found.dtype.kind not in "iuf":
            raise TaskError(
                f"{self.name!r} must return numbers of shape (texts, size), but for {len(some)} "
                f"texts it returned {found.dtype} of shape {found.shape}"
            )
        bad = np.flatnonzero(~np.isfinite(found).all(1))
        if len(bad):
            raise TaskError(
                f"{self.name!r} must return finite vectors, but that of text {start + bad[0]} "
                "(from 0) is not"
            )
        return found.astype(np.float32)


def _codes(text: str) -> npt.NDArray[np.uint32]:
    """Return the numbers of characters."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))
