"""Reading programs from text: the mirror image of `kernel.text.print_program`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, get_args

import numpy as np

from tapeout.ir.parse import header, read_loc
from tapeout.ir.read import HASH, Reader
from tapeout.ir.scan import Scanner
from tapeout.kernel.parse import KernelParser
from tapeout.kernel.program import (
    Branch,
    Buffer,
    Check,
    Launch,
    Layout,
    Loop,
    Program,
    Slot,
    Space,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tapeout.ir.op import Array
    from tapeout.ir.type import TensorType
    from tapeout.kernel import loops
    from tapeout.kernel.program import Item
    from tapeout.support.loc import Loc

_HEX = re.compile(r'"((?:[0-9a-f]{2})*)"', re.ASCII)
SPACES: tuple[Space, ...] = get_args(Space)


def parse_program(text: str, tensors: Mapping[str, Array] | None = None, file: str = "") -> Program:
    """Return the program that a text describes; it is not verified.

    Args:
        text: What `print_program` writes.
        tensors: Content of the side file (`kernel.text.program_data`), needed for programs with many constants.
        file: Name of the file, for error messages.

    Raises:
        ParseError: The text breaks the grammar; names line and column.
    """
    return _ProgramParser(Scanner(text, file), tensors or {}).program()


class _ProgramParser:
    """Reads one program."""

    def __init__(self, scanner: Scanner, tensors: Mapping[str, Array]) -> None:
        self.s = scanner
        self.tensors = tensors
        self.reader = Reader(scanner, {}, None)
        self.slots: list[Slot] = []
        self.bytes = 0
        self.data = b""
        self.buffers: dict[str, Buffer] = {}
        self.inputs: list[str] = []
        self.types: dict[str, TensorType] = {}
        self.outputs: dict[str, str] = {}
        self.items: list[Item] = []
        self.kernels: dict[str, loops.Kernel] = {}
        self.statements: dict[str, Callable[[], None]] = {
            "layout": self.layout,
            "data": self.constants,
            "buffer": self.buffer,
            "input": self.input,
            "takes": self.takes,
            "output": self.output,
            "launch": self.launch,
            "check": self.check,
            "loop": self.loop,
            "branch": self.branch,
            "symbol": self.symbol,
        }

    def program(self) -> Program:
        s = self.s
        header(s)
        s.expect_word("program")
        name = s.name("the program's name")
        s.expect_word("arena")
        arena = s.integer("bytes")
        self.open()
        while not s.sees("}"):
            if s.peek_word() == "kernel":
                self.kernel("")
                continue
            self.statements[s.expect_word(*self.statements)]()
        self.close()
        s.expect_end()
        return Program(
            name,
            tuple(self.inputs),
            self.outputs,
            self.buffers,
            tuple(self.items),
            self.kernels,
            Layout(tuple(self.slots), self.bytes),
            arena,
            self.data,
            self.types,
        )

    def open(self) -> None:
        self.s.expect("{")
        self.s.end_line()

    def close(self) -> None:
        self.s.expect("}")
        self.s.end_line()

    def number(self, word: str) -> int:
        """Read a word and the number after it."""
        self.s.expect_word(word)
        return self.s.integer("a number")

    def typed(self) -> tuple[str, TensorType]:
        """Read `name: f32[2,3]`."""
        name = self.s.name("a name")
        self.s.expect(":")
        return name, self.reader.type()

    def layout(self) -> None:
        s = self.s
        self.bytes = s.integer("bytes")
        self.open()
        while not s.sees("}"):
            kind = s.name("a kind")
            name, type_ = self.typed()
            self.slots.append(Slot(name, type_, kind, self.number("at")))
            s.end_line()
        self.close()

    def constants(self) -> None:
        s = self.s
        start = s.pos
        found = s.match(_HEX)
        if found is not None:
            self.data = bytes.fromhex(found.group(1))
        else:
            size = s.integer("bytes")
            key = s.match(HASH)
            array = self.tensors.get(key.group(1)) if key is not None else None
            if array is None or array.dtype != np.uint8 or array.nbytes != size:
                s.fail("the constants are in a side file, which is needed here", start)
            self.data = array.tobytes()
        s.end_line()

    def buffer(self) -> None:
        s = self.s
        start = s.pos
        name, type_ = self.typed()
        order = tuple(range(type_.rank))
        if s.take_word("order"):
            order = self.order()
        word = s.expect_word(*SPACES)
        space = next(known for known in SPACES if known == word)
        offset = self.number("at")
        of = s.name("a buffer") if s.take_word("of") else ""
        step = self.number("step") if s.peek_word() == "step" else 0
        level = self.number("loop") if s.peek_word() == "loop" else 0
        first, last = self.number("live"), s.integer("an item")
        if name in self.buffers:
            s.fail(f"two buffers are called {name!r}", start)
        self.buffers[name] = Buffer(name, type_, order, space, offset, first, last, of, step, level)
        s.end_line()

    def order(self) -> tuple[int, ...]:
        start = self.s.pos
        found = self.reader.value()
        if not isinstance(found, tuple) or not all(isinstance(d, int) for d in found):
            self.s.fail("a list of dimensions is expected", start)
        return found

    def input(self) -> None:
        self.inputs.append(self.s.name("a buffer"))
        self.s.end_line()

    def takes(self) -> None:
        name, self.types[name] = self.typed()
        self.s.end_line()

    def output(self) -> None:
        name = self.s.name("an output")
        self.s.expect("=")
        self.outputs[name] = self.s.name("a buffer")
        self.s.end_line()

    def loop(self) -> None:
        count = self.s.integer("how often")
        label, loc = self.head()
        self.items.append(Loop(count, self.inside(), loc, label))
        self.s.end_line()

    def branch(self) -> None:
        name = self.s.name("a buffer")
        label, loc = self.head()
        then = self.inside()
        self.s.expect_word("else")
        self.open()
        self.items.append(Branch(name, then, self.inside(), loc, label))
        self.s.end_line()

    def head(self) -> tuple[str, Loc]:
        """Read label and place of a loop or branch, and the brace."""
        label = self.s.string("a label") if self.s.sees('"') else ""
        loc = read_loc(self.s)
        self.open()
        return label, loc

    def inside(self) -> tuple[Item, ...]:
        """Read items up to a closing brace."""
        outside, self.items = self.items, []
        with self.s.deeper():
            while not self.s.sees("}"):
                self.statements[self.s.expect_word("launch", "check", "loop", "branch")]()
            self.s.expect("}")
        found, self.items = self.items, outside
        return tuple(found)

    def launch(self) -> None:
        s = self.s
        kernel = s.name("a kernel")
        args: list[str] = []
        s.expect("(")
        if not s.take(")"):
            args.append(s.name("a buffer"))
            while s.take(","):
                args.append(s.name("a buffer"))
            s.expect(")")
        update = s.take_word("update")
        flops = self.number("flops") if s.peek_word() == "flops" else 0
        size = self.number("bytes") if s.peek_word() == "bytes" else 0
        label = s.string("a label") if s.sees('"') else ""
        self.items.append(Launch(kernel, tuple(args), read_loc(s), label, flops, size, update))
        s.end_line()

    def check(self) -> None:
        name = self.s.name("a buffer")
        code = self.number("code")
        self.items.append(Check(name, code, self.s.string("a message")))
        self.s.end_line()

    def symbol(self) -> None:
        name = self.s.name("a symbol")
        self.s.end_line()
        self.kernel(name)

    def kernel(self, symbol: str) -> None:
        start = self.s.pos
        kernel = KernelParser(self.s).kernel()
        name = symbol or kernel.name
        if name in self.kernels:
            self.s.fail(f"two kernels have the symbol {name!r}", start)
        self.kernels[name] = kernel
