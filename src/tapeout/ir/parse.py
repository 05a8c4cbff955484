"""Reading graphs and modules from `.tape` text: the mirror image of `ir.text`.

The operations named must be known (`import tapeout.ops`). Every type is inferred anew and compared with the one written.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from tapeout.ir.attribute import spell_type
from tapeout.ir.build import Builder
from tapeout.ir.graph import Graph, Module, Variable
from tapeout.ir.read import Reader
from tapeout.ir.rebind import rebind
from tapeout.ir.scan import Scanner
from tapeout.ir.side import side_file, unpack
from tapeout.ir.text import LOC_WORD
from tapeout.support.errors import ParseError, nearest
from tapeout.support.loc import UNKNOWN, Loc
from tapeout.support.reading import read_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tapeout.ir.graph import Value
    from tapeout.ir.op import Array
    from tapeout.ir.type import TensorType

KINDS = ("parameter", "state", "hyper")
VERSION = 1
TEXT_LIMIT = 1 << 30
DATA_LIMIT = 1 << 40
_NUMBER = re.compile(r"[0-9]{1,18}(?![0-9A-Za-z_.])", re.ASCII)


def parse_graph(text: str, tensors: Mapping[str, Array] | None = None, file: str = "") -> Graph:
    """Return the graph that a text describes.

    Args:
        text: What `print_graph` writes, or the like by hand.
        tensors: Content of the side file by hash. None: variables whose data are in the side file have no initial value.
        file: Name of the file, for error messages.

    Raises:
        ParseError: The text breaks the grammar, or types, attributes or names do not fit; names line and column.
    """
    s = Scanner(text, file)
    header(s)
    graph = _GraphParser(s, tensors, None).graph()
    s.expect_end()
    return graph


def parse_module(text: str, tensors: Mapping[str, Array] | None = None, file: str = "") -> Module:
    """Return the module that a text describes; see `parse_graph`."""
    s = Scanner(text, file)
    header(s)
    s.expect_word("module")
    name = s.name("the module's name")
    _open(s)
    variables = Builder(name)
    reader = Reader(s, {}, tensors)
    while s.peek_word() not in ("graph", ""):
        _variable(s, reader, variables)
    shared = variables.graph().variables
    graphs: list[Graph] = []
    while s.peek_word() == "graph":
        start = s.pos
        graphs.append(_GraphParser(s, tensors, shared).graph())
        if graphs[-1].name in [g.name for g in graphs[:-1]]:
            s.fail(f"two graphs are called {graphs[-1].name!r}", start)
    _close(s)
    s.expect_end()
    return Module(name, shared, tuple(graphs))


def read_tape(path: Path) -> Graph | Module:
    """Return the graph or module of a `.tape` file with its tensors.

    Without its side file, variables whose data were there have no initial value.

    Raises:
        ParseError: The text or the side file is damaged.
        DataError: A file cannot be read.
    """
    try:
        text = read_file(path, TEXT_LIMIT).decode()
    except UnicodeDecodeError as e:
        raise ParseError(f"no UTF-8 text: {e.reason} at byte {e.start}", where=str(path)) from None
    side = side_file(path)
    tensors = unpack(read_file(side, DATA_LIMIT), str(side)) if side.exists() else None
    s = Scanner(text, path.name)
    header(s)
    if s.peek_word() == "module":
        return parse_module(text, tensors, path.name)
    return parse_graph(text, tensors, path.name)


def header(s: Scanner) -> None:
    """Read `tape 1`.

    Raises:
        ParseError: Another version wrote the text.
    """
    s.expect_word("tape")
    start = s.pos
    version = s.integer("the version of the format")
    if version != VERSION:
        s.fail(f"this is version {version} of the format, only version {VERSION} is known", start)
    s.end_line()


def _open(s: Scanner) -> None:
    s.expect("{")
    s.end_line()


def _close(s: Scanner) -> None:
    s.expect("}")
    s.end_line()


def _variable(s: Scanner, reader: Reader, builder: Builder) -> Value:
    """Read `frozen parameter %w: f32[2] = …` and declare it."""
    frozen = s.take_word("frozen")
    word = s.expect_word(*KINDS)
    kind: Literal["parameter", "state", "hyper"] = (
        "parameter" if word == "parameter" else "state" if word == "state" else "hyper"
    )
    start = s.pos
    s.expect("%")
    name = s.name("the variable's name")
    s.expect(":")
    type_ = reader.type()
    initial = reader.literal(type_) if s.take("=") else None
    with s.blaming(start):
        value = builder.add_variable(name, type_, kind, trainable=not frozen, initial=initial)
    s.end_line()
    return value


class _GraphParser:
    """Reads one graph. `shared` are the variables of the module around it, None for a graph that stands alone."""

    def __init__(
        self,
        scanner: Scanner,
        tensors: Mapping[str, Array] | None,
        shared: tuple[Variable, ...] | None,
    ) -> None:
        self.scanner = scanner
        self.dims: dict[str, int] = {}
        self.reader = Reader(scanner, self.dims, tensors)
        self.shared = None if shared is None else {v.name: v for v in shared}
        self.builder = Builder("")
        self.named: dict[str, Value] = {}
        self.variables: set[str] = set()
        self.numbered: list[Value] = []

    def graph(self) -> Graph:
        s = self.scanner
        s.expect_word("graph")
        self.builder.name = s.name("the graph's name")
        _open(s)
        self.head()
        while not s.sees("}"):
            self.statement()
        _close(s)
        graph = self.builder.graph(self.dims)
        return replace(graph, source=lambda dims: rebind(graph, dims)) if self.dims else graph

    def head(self) -> None:
        """Read what is declared before the nodes."""
        s = self.scanner
        if s.peek_word() == "dims":
            self.read_dims()
        while s.peek_word() == "input":
            self.input()
        if self.shared is None:
            while s.peek_word() in (*KINDS, "frozen"):
                self.declare(_variable(s, self.reader, self.builder))
            return
        used = list(self.shared)
        if s.take_word("uses"):
            used = [self.use()]
            while s.take(","):
                used.append(self.use())
            s.end_line()
        elif s.take_word("without"):
            s.expect_word("variables")
            s.end_line()
            used = []
        for name in used:
            with s.blaming(s.pos):
                self.declare(self.builder.adopt(self.shared[name]))

    def declare(self, value: Value) -> None:
        self.named[value.name] = value
        self.variables.add(value.name)

    def use(self) -> str:
        s = self.scanner
        start = s.pos
        s.expect("%")
        name = s.name("a variable")
        assert self.shared is not None
        if name not in self.shared:
            s.fail(f"the module has no variable {name!r}", start, nearest(name, self.shared))
        return name

    def read_dims(self) -> None:
        s = self.scanner
        s.expect_word("dims")
        while not self.dims or s.take(","):
            start = s.pos
            name = s.name("a dimension")
            s.expect("=")
            size = s.integer("the size that the types show")
            if name in self.dims or not 0 <= size < 1 << 62:
                s.fail("a dimension has one name and a size that fits", start)
            self.dims[name] = size
        s.end_line()

    def input(self) -> None:
        s = self.scanner
        s.expect_word("input")
        start = s.pos
        s.expect("%")
        name = s.name("the input's name")
        s.expect(":")
        type_ = self.reader.type()
        with s.blaming(start):
            self.named[name] = self.builder.add_input(name, type_)
        s.end_line()

    # -- statements ---------------------------------------------------------------------------------

    def statement(self) -> None:
        s = self.scanner
        if s.sees("%"):
            self.node()
        elif s.take_word("output"):
            start = s.pos
            name = s.name("the output's name")
            s.expect("=")
            with s.blaming(start):
                self.builder.set_output(name, self.value())
        elif s.take_word("update"):
            self.update()
        elif s.take_word("check"):
            bad = self.value()
            self.builder.add_check(bad, s.string("the message"))
        else:
            s.fail("a node, output, update, check or '}' is expected")
        s.end_line()

    def update(self) -> None:
        s = self.scanner
        start = s.pos
        name = s.name("a variable")
        if name not in self.variables:
            s.fail(f"no variable is called {name!r}", start, nearest(name, sorted(self.variables)))
        s.expect("=")
        with s.blaming(start):
            self.builder.set_update(name, self.value())

    def node(self) -> None:
        s = self.scanner
        start = s.pos
        written = [self.result(0)]
        while s.take(","):
            written.append(self.result(len(written)))
        s.expect("=")
        at = s.pos
        cls, given = self.reader.attributes()
        operands: list[Value] = []
        if s.sees("%"):
            operands.append(self.value())
            while s.take(","):
                operands.append(self.value())
        loc = read_loc(s, cls.regions)
        for name in cls.regions:
            s.expect_word(name)
            given[name] = self.region(name)
        with s.blaming(at):
            op = cls(**given)
            results = self.builder.emit(op, *operands, loc=loc)
        if len(results) != len(written):
            s.fail(f"{op.name} has {len(results)} results, {len(written)} are named", start)
        for type_, value in zip(written, results, strict=True):
            if type_ != value.type:
                s.fail(
                    f"the result is {spell_type(value.type)}, {spell_type(type_)} is written", start
                )
        self.numbered += results

    def region(self, name: str) -> Graph:
        """Read the graph of a region in braces."""
        s = self.scanner
        inner = _GraphParser(s, self.reader.tensors, None)
        inner.dims, inner.reader, inner.builder.name = self.dims, self.reader, name
        with s.deeper():
            _open(s)
            while s.peek_word() == "input":
                inner.input()
            while not s.sees("}"):
                if not s.sees("%") and s.peek_word() != "output":
                    s.fail("a node, output or '}' is expected in a region")
                inner.statement()
            s.expect("}")
        return inner.builder.graph()

    def result(self, index: int) -> TensorType:
        """Read `%3: f32[2]`; nodes number their results in order, which keeps the text free of surprises."""
        s = self.scanner
        start = s.pos
        s.expect("%")
        found = s.match(_NUMBER)
        expected = len(self.numbered) + index
        if found is None or int(found.group()) != expected:
            s.fail(f"%{expected} is expected: results are numbered in order", start)
        s.expect(":")
        return self.reader.type()

    def value(self) -> Value:
        s = self.scanner
        start = s.pos
        s.expect("%")
        found = s.match(_NUMBER)
        if found is not None:
            number = int(found.group())
            if number >= len(self.numbered):
                s.fail(f"%{number} is not defined above", start)
            return self.numbered[number]
        name = s.name("a value")
        if name not in self.named:
            s.fail(f"no value is called {name!r}", start, nearest(name, self.named))
        return self.named[name]


def read_loc(s: Scanner, after: tuple[str, ...] = ()) -> Loc:
    """Read `@ file:name role`, or nothing. A word of `after` that a brace follows is no role."""
    if not s.take("@"):
        return UNKNOWN
    file = _loc_part(s)
    if not s.sees(":"):
        s.fail("':' is expected between file and name")
    # No blanks are passed over here: a name follows the colon at once, a role after a space.
    s.pos += 1
    name = _loc_part(s)
    s.take("")
    word = s.peek_word()
    ends = word in after and s.text[s.pos + len(word) :].lstrip(" ").startswith("{")
    role = s.name("a role") if (s.sees('"') or word) and not ends else "forward"
    return Loc(file, name, role)


def _loc_part(s: Scanner) -> str:
    if s.sees('"'):
        return s.string("a name")
    found = LOC_WORD.match(s.text, s.pos)
    if found is None:
        return ""
    s.pos = found.end()
    return found.group()
