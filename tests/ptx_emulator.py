"""Runs PTX on numpy, one block at a time: enough of it for the code that `codegen.ptx` writes.

Threads of a block run together as long as they stand at one instruction; where they part, those furthest behind go first. A
barrier that not all of them reach, and an address outside every buffer, are errors.
"""

import re
from dataclasses import dataclass, field

import numpy as np

Lanes = np.ndarray
"""One entry per thread."""

_OPERANDS = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^,\s]+")
_ROUND = {"rn": np.rint, "rni": np.rint, "rmi": np.floor, "rpi": np.ceil, "rzi": np.trunc}
_COMPARE = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal}
_COMPARE |= {"gt": np.greater, "ge": np.greater_equal}
_BITS = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}
_PLAIN = {"add": np.add, "sub": np.subtract, "mul": np.multiply}
SHARED = 1 << 60


@dataclass
class _Instruction:
    guard: str
    parts: list[str]
    operands: list[str]


@dataclass
class Program:
    """A kernel in PTX, ready to run."""

    instructions: list[_Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    shared: dict[str, int] = field(default_factory=dict)
    shared_bytes: int = 0
    threads: int = 1

    @classmethod
    def parse(cls, text: str) -> "Program":
        p = cls()
        for raw in text.splitlines():
            line = raw.split("//")[0].strip().rstrip(";")
            if found := re.match(r"\.maxntid (\d+)", line):
                p.threads = int(found[1])
            elif found := re.match(r"\.shared \.align (\d+) \.b8 (\w+)\[(\d+)\]", line):
                p.shared_bytes = -(-p.shared_bytes // int(found[1])) * int(found[1])
                p.shared[found[2]] = SHARED + p.shared_bytes
                p.shared_bytes += int(found[3])
            elif found := re.match(r"(\$\w+):", line):
                p.labels[found[1]] = len(p.instructions)
            elif line and line[0] not in ".{})(" and not line.endswith(("(", ":")):
                guard = ""
                if line.startswith("@"):
                    guard, line = line.split(None, 1)
                opcode, *rest = line.split(None, 1)
                p.instructions.append(
                    _Instruction(guard, opcode.split("."), _OPERANDS.findall(*rest or [""]))
                )
        return p

    def run(self, buffers: list[Lanes], blocks: int) -> None:
        """Run every block; `buffers` are contiguous arrays, in the order of the parameters."""
        with np.errstate(all="ignore"):
            for block in range(blocks):
                _Block(self, buffers, block).run()


def numpy_type(name: str) -> np.dtype:
    return np.dtype({"f": "f", "s": "i", "u": "u", "b": "u"}[name[0]] + str(int(name[1:]) // 8))


class _Block:
    def __init__(self, program: Program, buffers: list[Lanes], number: int) -> None:
        self.p = program
        n = program.threads
        self.memories = {(i + 1) << 40: b.reshape(-1).view(np.uint8) for i, b in enumerate(buffers)}
        self.memories[SHARED] = np.full(program.shared_bytes, 0xFF, np.uint8)
        self.registers: dict[str, Lanes] = {
            "%tid.x": np.arange(n, dtype=np.uint64),
            "%ctaid.x": np.full(n, number, np.uint64),
        }
        self.pc = np.zeros(n, np.int64)
        self.waiting = np.zeros(n, np.bool_)

    def run(self) -> None:
        end = len(self.p.instructions)
        while True:
            left = self.pc < end
            ready = left & ~self.waiting
            if not ready.any():
                if not left.any():
                    return
                assert len(set(self.pc[left])) == 1, "threads wait at different barriers"
                assert left.all(), "a barrier waits for threads that have ended"
                self.waiting[:] = False
                self.pc[left] += 1
                continue
            at = int(self.pc[ready].min())
            self.step(self.p.instructions[at], ready & (self.pc == at))

    def step(self, ins: _Instruction, here: Lanes) -> None:
        chosen = here
        if ins.guard:
            value = self.registers[ins.guard.lstrip("@!")] != 0
            chosen = here & (~value if "!" in ins.guard else value)
        name = ins.parts[0]
        if name == "ret":
            self.pc[chosen] = len(self.p.instructions)
            self.pc[here & ~chosen] += 1
        elif name == "bra":
            self.pc[here] += 1
            self.pc[chosen] = self.p.labels[ins.operands[0]]
        elif name in ("bar", "barrier") and ins.parts[1] != "warp":
            self.waiting |= here
        else:
            self.pc[here] += 1
            if name not in ("bar",):
                getattr(self, f"do_{name}", self.arithmetic)(ins, chosen)

    # --- operands --------------------------------------------------------------------------------

    def raw(self, operand: str, type_: np.dtype) -> Lanes:
        """Return an operand as bits in u64."""
        n = len(self.pc)
        if operand.startswith("%"):
            return self.registers.get(operand, np.zeros(n, np.uint64))
        if operand.startswith(("0f", "0d")):
            bits = int(operand[2:], 16)
        elif operand in self.p.shared:
            bits = self.p.shared[operand]
        else:
            bits = int(operand, 0) & ((1 << 8 * type_.itemsize) - 1)
        return np.full(n, bits, np.uint64)

    def read(self, operand: str, name: str) -> Lanes:
        if name == "pred":
            negated = operand.startswith("!")
            return (self.raw(operand.lstrip("!"), np.dtype("u8")) != 0) ^ negated
        type_ = numpy_type(name)
        return self.raw(operand, type_).astype(f"u{type_.itemsize}").view(type_)

    def write(self, register: str, value: Lanes, here: Lanes) -> None:
        value = np.asarray(value)
        bits = (
            value.astype(np.uint64) if value.dtype == np.bool_ else value.view(f"u{value.itemsize}")
        )
        old = self.registers.setdefault(register, np.zeros(len(self.pc), np.uint64))
        self.registers[register] = np.where(here, bits.astype(np.uint64), old)

    # --- instructions ----------------------------------------------------------------------------

    def arithmetic(self, ins: _Instruction, here: Lanes) -> None:
        name, *_, type_ = ins.parts
        to, *operands = ins.operands
        xs = [self.read(o, type_) for o in operands]
        if name in _BITS:
            y = _BITS[name](*xs)
        elif name in _PLAIN:
            y = _PLAIN[name](*xs)
        else:
            y = _FUNCTIONS[name](*xs)
        self.write(to, np.asarray(y), here)

    def do_mul(self, ins: _Instruction, here: Lanes) -> None:
        type_ = ins.parts[-1]
        x, y = (self.read(o, type_) for o in ins.operands[1:])
        if ins.parts[1] == "wide":
            wide = f"{numpy_type(type_).kind}{numpy_type(type_).itemsize * 2}"
            x, y = x.astype(wide), y.astype(wide)
        elif ins.parts[1] == "hi":
            wide = [int(a) * int(b) >> 8 * x.itemsize for a, b in zip(x, y, strict=True)]
            self.write(ins.operands[0], np.array(wide, x.dtype), here)
            return
        self.write(ins.operands[0], x * y, here)

    def do_mad(self, ins: _Instruction, here: Lanes) -> None:
        x, y, z = (self.read(o, ins.parts[-1]) for o in ins.operands[1:])
        self.write(ins.operands[0], x * y + z, here)

    def do_mov(self, ins: _Instruction, here: Lanes) -> None:
        to, source = (re.findall(r"[^{},\s]+", o) for o in ins.operands)
        half = numpy_type(ins.parts[-1]).itemsize * 4
        if len(to) == 2:
            bits = self.raw(source[0], np.dtype("u8"))
            for name, part in zip(to, (bits, bits >> np.uint64(half)), strict=True):
                self.write(name, part & np.uint64((1 << half) - 1), here)
            return
        if len(source) == 2:
            low, high = (self.raw(o, np.dtype("u8")) for o in source)
            self.write(to[0], low | (high << np.uint64(half)), here)
            return
        self.write(ins.operands[0], self.read(ins.operands[1], ins.parts[-1]), here)

    def do_cvta(self, ins: _Instruction, here: Lanes) -> None:
        self.do_mov(ins, here)

    def do_cvt(self, ins: _Instruction, here: Lanes) -> None:
        to, source = (numpy_type(t) for t in ins.parts[-2:])
        x = self.read(ins.operands[1], ins.parts[-1])
        mode = next((m for m in ins.parts[1:-2] if m in _ROUND), "")
        if source.kind == "f" and mode and (to.kind != "f" or mode != "rn"):
            x = _ROUND[mode](x)
        self.write(ins.operands[0], x.astype(to), here)

    def do_setp(self, ins: _Instruction, here: Lanes) -> None:
        how, type_ = ins.parts[1], ins.parts[-1]
        x, y = (self.read(o, type_) for o in ins.operands[1:])
        nan = np.isnan(x) | np.isnan(y) if type_[0] == "f" else np.zeros(len(x), np.bool_)
        if how in ("nan", "num"):
            result = nan if how == "nan" else ~nan
        elif how in _COMPARE:
            result = _COMPARE[how](x, y) & ~nan
        else:
            result = _COMPARE[how[:-1]](x, y) | nan
        self.write(ins.operands[0], result, here)

    def do_selp(self, ins: _Instruction, here: Lanes) -> None:
        to, a, b, p = ins.operands
        x, y = self.read(a, ins.parts[-1]), self.read(b, ins.parts[-1])
        self.write(to, np.where(self.read(p, "pred"), x, y), here)

    def do_shl(self, ins: _Instruction, here: Lanes) -> None:
        self.shift(ins, here, np.left_shift)

    def do_shr(self, ins: _Instruction, here: Lanes) -> None:
        self.shift(ins, here, np.right_shift)

    def shift(self, ins: _Instruction, here: Lanes, how: np.ufunc) -> None:
        x = self.read(ins.operands[1], ins.parts[-1])
        by = self.read(ins.operands[2], "u32")
        bits = 8 * x.itemsize
        inside = how(x, np.minimum(by, bits - 1).astype(x.dtype))
        keeps_sign = how is np.right_shift and x.dtype.kind == "i"
        self.write(
            ins.operands[0], np.where((by < bits) | keeps_sign, inside, 0).astype(x.dtype), here
        )

    def do_bfe(self, ins: _Instruction, here: Lanes) -> None:
        x = self.read(ins.operands[1], ins.parts[-1])
        at, count = (int(self.read(o, "u32")[0]) for o in ins.operands[2:])
        bits = 8 * x.itemsize
        left = (x << np.array(bits - at - count).astype(x.dtype)) if count else np.zeros_like(x)
        self.write(ins.operands[0], left >> np.array(bits - max(count, 1)).astype(x.dtype), here)

    def do_shfl(self, ins: _Instruction, here: Lanes) -> None:
        assert here.reshape(-1, 32).all(1).any(), "a shuffle without its whole warp"
        to, source, distance, *_ = ins.operands
        x = self.read(source, "b32")
        other = np.arange(len(x)) ^ int(self.read(distance, "u32")[0])
        self.write(to.split("|")[0], x[other], here)

    # --- memory ----------------------------------------------------------------------------------

    def do_ld(self, ins: _Instruction, here: Lanes) -> None:
        names = re.findall(r"%\w+", ins.operands[0])
        if ins.parts[1] == "param":
            number = int(re.search(r"_param_(\d+)", ins.operands[1])[1])
            self.write(names[0], np.full(len(self.pc), (number + 1) << 40, np.uint64), here)
            return
        type_ = numpy_type(ins.parts[-1])
        found = np.zeros((len(names), len(self.pc)), type_)
        for t in np.flatnonzero(here):
            found[:, t] = self.place(ins.operands[1], t, type_, len(names))
        for name, value in zip(names, found, strict=True):
            # A value narrower than its register is extended by its sign.
            self.write(name, value.astype(f"{type_.kind}8") if type_.kind == "i" else value, here)

    def do_st(self, ins: _Instruction, here: Lanes) -> None:
        names = re.findall(r"[^{},\s]+", ins.operands[1])
        values = [self.read(name, ins.parts[-1]) for name in names]
        for t in np.flatnonzero(here):
            self.place(ins.operands[0], t, values[0].dtype, len(values))[:] = [v[t] for v in values]

    def place(self, operand: str, thread: int, type_: np.dtype, count: int) -> Lanes:
        """Return the memory at `[%rd1+16]` for a thread."""
        base, offset = re.match(r"\[([^+\]]+)(?:\+(-?\d+))?\]", operand).groups()
        address = int(self.raw(base, np.dtype("u8"))[thread]) + int(offset or 0)
        start = max(m for m in self.memories if m <= address)
        at, size = address - start, type_.itemsize * count
        assert at + size <= len(self.memories[start]), f"byte {at} lies outside its buffer"
        assert at % size == 0, f"byte {at} is not aligned for {size} bytes"
        return self.memories[start][at : at + size].view(type_)


def _extreme(pick: np.ufunc, zero: np.ufunc):
    """PTX gives the number where one operand is NaN, and orders -0.0 below 0.0."""

    def result(x: Lanes, y: Lanes) -> Lanes:
        if x.dtype.kind != "f":
            return pick(x, y)
        bits = f"u{x.itemsize}"
        tie = zero(x.view(bits), y.view(bits)).view(x.dtype)
        return np.where(x == y, tie, pick(x, y))

    return result


def _divide(x: Lanes, y: Lanes) -> Lanes:
    if x.dtype.kind == "f":
        return x / y
    safe = np.where(y == 0, 1, y)
    return ((x - np.fmod(x, safe)) // safe).astype(x.dtype)


def _fma(x: Lanes, y: Lanes, z: Lanes) -> Lanes:
    from tapeout.ir.dtype import from_numpy
    from tapeout.oracle.scalars import apply

    return apply("fma", (x, y, z), from_numpy(x.dtype))


_FUNCTIONS = {
    "abs": np.abs,
    "neg": np.negative,
    "not": np.invert,
    "sqrt": np.sqrt,
    "rcp": lambda x: (1 / x).astype(x.dtype),
    "div": _divide,
    "rem": lambda x, y: np.fmod(x, np.where(y == 0, 1, y).astype(x.dtype)),
    "fma": _fma,
    "max": _extreme(np.fmax, np.bitwise_and),
    "min": _extreme(np.fmin, np.bitwise_or),
}
