"""Random bits that depend on nothing but a seed, a step counter, a stream and the element's number.

The generator is Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3"): a block of four words is a keyed
function of a counter, so that any element can be computed alone, in any order, on any device, with the same bits.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from tapeout.ir.affine import linearize
from tapeout.ir.dtype import i32, i64, u32, u64
from tapeout.ir.op import Pointwise, register
from tapeout.ir.type import Shape, TensorType
from tapeout.support.errors import OptionError, ShapeError

if TYPE_CHECKING:
    from tapeout.ir.affine import Affine
    from tapeout.ir.dtype import DType
    from tapeout.ir.op import Array, Read, T
    from tapeout.ir.scalar import ScalarOps
    from tapeout.ops.sym import Sym

_ROUNDS = 10
_MULTIPLY = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = 0xFFFFFFFF


@register
class RandomBits(Pointwise):
    """Random u32 words; operands are the seed and the step counter, i64 scalars.

    Element n is word n % 4 of the block of counter (n // 4, step counter), under the key (low word of the seed xor stream, high
    word of the seed).
    """

    name = "random_bits"
    shape: Shape
    stream: int

    def __post_init__(self) -> None:
        """Check the stream, which is one word of the key."""
        if not 0 <= self.stream <= _LOW:
            raise OptionError(f"random_bits: stream is {self.stream}, expected 0..{_LOW}")

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Return u32 of the shape; the operands must be i64 scalars."""
        scalar = TensorType(i64)
        if types != (scalar, scalar):
            got = ", ".join(map(str, types))
            raise ShapeError(f"random_bits takes a seed and a counter, {scalar} each, got {got}")
        return (TensorType(u32, self.shape),)

    def at(
        self,
        s: ScalarOps[T],
        index: tuple[Affine, ...],
        types: tuple[TensorType, ...],
        *reads: Read[T],
    ) -> T:
        """Return the word of the element's number."""
        number = s.index(linearize(index, self.shape))
        seed, step = reads[0](()), reads[1](())
        block = s.apply("shr", number, s.const(2, i64))
        key = (s.apply("xor", s.cast(seed, u32), s.const(self.stream, u32)), _high(s, seed))
        counter = (s.cast(block, u32), _high(s, block), s.cast(step, u32), _high(s, step))
        words = _philox(s, counter, key)
        word = s.apply("and", s.cast(number, u32), s.const(3, u32))
        found = words[3]
        for i in (2, 1, 0):
            found = s.select(s.compare("eq", word, s.const(i, u32)), words[i], found)
        return found

    def reference(self, *arrays: Array) -> Array:
        """Return the same bits, four words at a time."""
        size = int(np.prod(self.shape, dtype=np.int64))
        seed, step = (int(x) & 0xFFFFFFFF_FFFFFFFF for x in arrays)
        block = np.arange((size + 3) // 4, dtype=np.uint64)
        low, shift = np.uint64(_LOW), np.uint64(32)
        c = [block & low, block >> shift]
        c += [np.full_like(block, step & _LOW), np.full_like(block, step >> 32)]
        k0, k1 = (seed & _LOW) ^ self.stream, seed >> 32
        for _ in range(_ROUNDS):
            p0, p1 = c[0] * np.uint64(_MULTIPLY[0]), c[2] * np.uint64(_MULTIPLY[1])
            c = [
                (p1 >> shift) ^ c[1] ^ np.uint64(k0),
                p1 & low,
                (p0 >> shift) ^ c[3] ^ np.uint64(k1),
                p0 & low,
            ]
            k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
        words = np.stack(c, axis=-1).astype(np.uint32).ravel()
        return words[:size].reshape(self.shape)

    def pullback(
        self,
        cotangents: tuple[Sym | None, ...],
        operands: tuple[Sym, ...],
        results: tuple[Sym, ...],
    ) -> tuple[Sym | None, ...]:
        """Return nothing: bits depend on no float."""
        return None, None


def _high(s: ScalarOps[T], x: T) -> T:
    """Return the high word of an i64."""
    return s.cast(s.apply("shr", s.bitcast(x, u64), s.const(32, u64)), u32)


def _philox(s: ScalarOps[T], counter: tuple[T, T, T, T], key: tuple[T, T]) -> tuple[T, T, T, T]:
    """Return the block of four words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for i in range(_ROUNDS):
        if i:
            k0, k1 = (s.add(k, s.const(w, u32)) for k, w in zip((k0, k1), _WEYL, strict=True))
        high0, low0 = _product(s, c0, _MULTIPLY[0])
        high1, low1 = _product(s, c2, _MULTIPLY[1])
        c0 = s.apply("xor", s.apply("xor", high1, c1), k0)
        c2 = s.apply("xor", s.apply("xor", high0, c3), k1)
        c1, c3 = low1, low0
    return c0, c1, c2, c3


def _product(s: ScalarOps[T], x: T, factor: int) -> tuple[T, T]:
    """Return the high and the low word of `x * factor`."""
    wide = s.mul(s.cast(x, u64), s.const(factor, u64))
    return s.cast(s.apply("shr", wide, s.const(32, u64)), u32), s.cast(wide, u32)


def stream_of(name: str) -> int:
    """Return the stream of a layer or node: it follows from the name, never from the order of nodes."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")


def uniform(bits: Sym, dtype: DType) -> Sym:
    """Return numbers evenly spread over [0, 1) from random u32: as many bits as the type keeps exactly.

    Raises:
        ShapeError: The bits are not u32, or the type is no float.
    """
    if bits.dtype != u32 or not dtype.is_float:
        raise ShapeError(f"uniform makes floats of u32, got {dtype} of {bits.type}")
    kept = {"f16": 11, "bf16": 8, "f32": 24, "f64": 32}[dtype.name]
    if kept == 32:
        return bits.cast(dtype) * 2.0**-32
    # Below 2**31 the word is a positive i32, which machines convert faster than a u32.
    return (bits >> (32 - kept)).cast(i32).cast(dtype) * 2.0**-kept


def bernoulli(bits: Sym, probability: float) -> Sym:
    """Return bools that are true with a probability, to the nearest multiple of 2**-32.

    Raises:
        OptionError: The probability does not lie in [0, 1].
    """
    if not 0.0 <= probability <= 1.0:
        raise OptionError(f"bernoulli: the probability is {probability}, expected 0..1")
    count = round(probability * 2.0**32)
    return bits <= count - 1 if count else bits < 0
