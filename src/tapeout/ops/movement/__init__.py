"""Operations that move data: constants, arrangements, cuts, windows; and what an index means.

Each is an index map. The gradient of one is another: slice and pad, broadcast and sum, windows and fold.
"""

from tapeout.ir.tensor import Tensor
from tapeout.ops.movement.arrange import (
    Broadcast,
    Concat,
    Reshape,
    Reverse,
    Transpose,
    reshape_index,
)
from tapeout.ops.movement.constant import Constant, Iota
from tapeout.ops.movement.cut import Pad, Slice
from tapeout.ops.movement.index import basic_index, complete_shape
from tapeout.ops.movement.windows import Fold, Windows, fold

__all__ = [
    "Broadcast",
    "Concat",
    "Constant",
    "Fold",
    "Iota",
    "Pad",
    "Reshape",
    "Reverse",
    "Slice",
    "Tensor",
    "Transpose",
    "Windows",
    "basic_index",
    "complete_shape",
    "fold",
    "reshape_index",
]
