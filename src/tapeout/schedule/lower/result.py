"""What lowering gives back: kernels in loops, in the order of their launch, and memory between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tapeout.ir.dtype import DType
    from tapeout.kernel.loops import Kernel


@dataclass(frozen=True)
class Scratch:
    """A buffer that lives between the first and the last launch of one lowered kernel.

    Attributes:
        name: Unique among the buffers of the kernel and its scratch.
        dtype: Element type.
        size: Number of elements.
    """

    name: str
    dtype: DType
    size: int


@dataclass(frozen=True)
class LoweredLaunch:
    """One kernel in loops.

    Attributes:
        kernel: Named by its content.
        args: A buffer of the kernel at level T, or a scratch buffer, for each of the kernel's params.
        flops: Floating-point operations (2 for a multiply-add), by the analytic model.
        bytes: Bytes read and written, each touched element counted once.
    """

    kernel: Kernel
    args: tuple[str, ...]
    flops: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Lowered:
    """A kernel at level T turned into launches, in order."""

    launches: tuple[LoweredLaunch, ...]
    scratch: tuple[Scratch, ...] = ()
