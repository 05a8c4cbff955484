"""Loads, stores and statements of level L, native against the oracle, and what a CPU refuses."""

import subprocess
import sys

import numpy as np
import pytest

from tapeout.codegen import cpu, machine
from tapeout.codegen.assemble import assembly
from tapeout.ir.dtype import ALL, BY_NAME, bool_, f32, f64, i32, i64
from tapeout.kernel import loops
from tapeout.kernel.target import AVX2, AVX512, GENERIC
from tapeout.kernel.target import BY_NAME as TARGETS_BY_NAME
from tapeout.support.errors import CompileError, TapeoutError
from tests.native import (
    add,
    compare,
    const,
    kernel,
    let,
    load,
    loop,
    mul,
    op,
    param,
    run_native,
    splat,
    store,
    var,
)

TARGETS = {"native": machine.native(), "generic": GENERIC}


def filled(k, rng):
    """Random arrays for every param; small integers serve as indices."""
    made = {}
    for p in k.params:
        if p.dtype == bool_:
            made[p.name] = rng.integers(0, 2, p.size).astype(bool)
        else:
            low = 0 if p.dtype.kind == "u" else -3
            made[p.name] = rng.integers(low, 9, p.size).astype(p.dtype.numpy)
    return made


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [d.name for d in ALL])
def test_first_lanes_only(dtype, target, rng):
    """Every number of active lanes of a vector, loaded and stored; the rest of memory stays as it was."""
    d, lanes = BY_NAME[dtype], 16
    body = []
    for n in range(lanes + 1):
        value = load("x", 20 * n, d, lanes, active=n, other=1)
        body += [store("o", 20 * n, value), store("p", 20 * n, load("x", n, d, lanes), active=n)]
    size = 20 * lanes + lanes
    # Where a load of no lane stands, memory need not exist.
    body.append(store("o", 0, load("x", 10**6, d, lanes, active=0, other=0)))
    k = kernel([param("x", d, size), param("o", d, size, "rw"), param("p", d, size, "rw")], *body)
    compare(k, filled(k, rng), target=TARGETS[target])


def masked_kernel(d, lanes):
    """Loads and stores by a mask, alone and with every number of active lanes."""
    at = mul(var("i"), lanes)
    mask = load("m", at, bool_, lanes)
    one = load("m", var("i"), bool_)
    body = [
        store("o", at, load("x", at, d, lanes, mask=mask, other=1)),
        store("p", at, load("x", at, d, lanes), mask=mask),
        store("r", var("i"), load("x", var("i"), d, mask=one, other=1)),
        store("s", var("i"), load("x", var("i"), d), mask=one),
    ]
    lives = sorted({0, 1, lanes // 2 - 1, lanes // 2, lanes // 2 + 1, lanes - 1, lanes})
    for n, live in enumerate(lives):
        place = add(mul(var("i"), lanes), 4 * lanes * n)
        value = load("x", at, d, lanes, mask=mask, active=live, other=1)
        body += [store("q", place, value), store("t", place, value, mask=mask, active=live)]
    size = 4 * lanes
    outs = [param(n, d, size, "rw") for n in "oprs"]
    outs += [param(n, d, size * len(lives), "rw") for n in "qt"]
    params = [param("x", d, size), param("m", bool_, size), *outs]
    return kernel(params, loop("i", 0, 4, body, kind="grid"))


@pytest.mark.parametrize("lanes", [2, 8, 32])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", ["f32", "f64", "i8", "u16", "bf16", "i64", "bool"])
def test_masks(dtype, target, lanes, rng):
    k = masked_kernel(BY_NAME[dtype], lanes)
    compare(k, filled(k, rng), target=TARGETS[target])


def test_masks_in_a_checked_build(rng):
    k = masked_kernel(f32, 16)
    compare(k, filled(k, rng), checked=True)


@pytest.mark.parametrize("lanes", [8, 16, 32])
@pytest.mark.parametrize("dtype", ["f32", "f64", "i8"])
def test_masks_assemble_for_avx512(dtype, lanes):
    """The machine may not run it; that LLVM does not end the process is worth knowing."""
    k = masked_kernel(BY_NAME[dtype], lanes)
    assert cpu.compile_objects({k.name: k}, AVX512)[k.name]


CHILD = """
import numpy as np
from tapeout.codegen import cpu, machine
from tapeout.ir.dtype import BY_NAME, bool_
from tapeout.kernel.target import GENERIC
from tapeout.runtime import jit
from tapeout.runtime.arena import Arena
from tests.native import const, kernel, load, mul, param, store

for target in (machine.native(), GENERIC):
    for name in ("f32", "f64", "i8"):
        d = BY_NAME[name]
        for lanes in (4, 8, 16, 32):
            for live in (1, lanes // 2 - 1, lanes // 2, lanes - 1):
                mask = load("m", 0, bool_, lanes)
                k = kernel(
                    [param("x", d, live), param("m", bool_, lanes), param("o", d, live, "w")],
                    store("o", 0, load("x", 0, d, lanes, active=live), active=live),
                    store("o", 0, load("x", 0, d, lanes, mask=mask), mask=mask),
                    store("o", 0, load("x", 0, d, lanes, mask=mask, active=live), mask=mask, active=live),
                )
                size = live * d.bytes
                x, o = Arena(4096, guard=True), Arena(4096, guard=True)
                source, into = (a.memory[-size:].view(d.numpy) for a in (x, o))
                source[:] = range(1, live + 1)
                code = cpu.compile_objects({k.name: k}, target)[k.name]
                jit.run_kernel(k, code, {"x": source, "o": into, "m": np.arange(lanes) < live})
                assert (source == into).all(), (name, lanes, live)
print("done")
"""


def test_lanes_that_are_left_out_are_never_touched():
    """Buffers that end where memory does: one lane too many would end the process."""
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True)
    assert done.stdout == "done\n", (done.returncode, done.stderr)


@pytest.mark.parametrize("checked", [False, True])
def test_lanes_past_the_end_may_be_masked(checked, rng):
    """A masked lane is never touched, wherever it points."""
    at = mul(var("i"), 8)
    inside = op("lt", loops.Ramp(i64, 8, at), const(21, i64, 8))
    value = load("x", at, f32, 8, mask=inside, other=7.0)
    scalar = op("lt", var("i"), const(2))
    body = [
        store("o", at, value, mask=inside),
        store("p", mul(var("i"), 100), load("x", mul(var("i"), 20), f32, mask=scalar), mask=scalar),
    ]
    k = kernel(
        [param("x", f32, 21), param("o", f32, 21, "rw"), param("p", f32, 101, "rw")],
        loop("i", 0, 3, body, kind="grid"),
    )
    compare(k, filled(k, rng), checked=checked)


@pytest.mark.parametrize("checked", [False, True])
@pytest.mark.parametrize("dtype", ["f32", "f64", "bool", "i8", "bf16"])
def test_gather(dtype, checked, rng):
    d = BY_NAME[dtype]
    index = load("i", mul(var("k"), 8), i64, 8)
    legal = op("ge", index, const(0, i64, 8))
    clamped = op("max", index, const(0, i64, 8))
    body = [
        store("o", mul(var("k"), 8), load("x", clamped, d, 8)),
        store("p", mul(var("k"), 8), load("x", index, d, 8, mask=legal, other=1)),
        store("q", mul(var("k"), 8), load("x", clamped, d, 8, active=3, other=1)),
    ]
    outs = [param(n, d, 32, "w") for n in "opq"]
    k = kernel([param("x", d, 9), param("i", i64, 32), *outs], loop("k", 0, 4, body, kind="grid"))
    compare(k, filled(k, rng), checked=checked)


def spaced(i, lanes):
    """Vectors of indices whose lanes lie at known distances, in the ways that a schedule writes them."""
    zero, ramp = loops.Ramp(i64, lanes, const(0)), loops.Ramp(i64, lanes, i)

    def all_lanes(n):
        return const(n, i64, lanes)

    yield ramp
    yield add(splat(i, lanes), zero)
    yield add(all_lanes(3), ramp)
    yield mul(ramp, all_lanes(2))
    yield add(splat(add(mul(i, 5), 1), lanes), mul(zero, all_lanes(2)))
    yield add(mul(all_lanes(3), zero), splat(i, lanes))
    yield op("sub", splat(add(i, 40), lanes), zero)
    yield op("sub", mul(ramp, all_lanes(4)), mul(zero, all_lanes(4)))
    yield op("sub", all_lanes(100), mul(zero, all_lanes(2)))
    yield splat(add(i, 7), lanes)
    yield add(mul(ramp, ramp), splat(load("n", 0, i64), lanes))


@pytest.mark.parametrize("checked", [False, True])
@pytest.mark.parametrize("lanes", [2, 4, 16])
@pytest.mark.parametrize("dtype", ["f32", "bool", "i8", "f64"])
def test_gather_at_known_distances(dtype, lanes, checked, rng):
    d, i = BY_NAME[dtype], var("i")
    body, count = [], 0
    for index in spaced(i, lanes):
        mask = load("m", i, bool_, lanes)
        for value in (
            load("x", index, d, lanes),
            load("x", index, d, lanes, active=lanes - 1, other=1),
            load("x", index, d, lanes, mask=mask),
        ):
            body.append(store("o", add(mul(i, lanes), 4 * lanes * count), value))
            count += 1
    body.append(let("index", mul(loops.Ramp(i64, lanes, i), const(2, i64, lanes))))
    body.append(
        store(
            "o",
            add(mul(i, lanes), 4 * lanes * count),
            load("x", var("index", i64, lanes), d, lanes),
        )
    )
    params = [param("x", d, 400), param("m", bool_, 64), param("n", i64, 1)]
    params.append(param("o", d, 4 * lanes * (count + 1), "w"))
    k = kernel(params, loop("i", 0, 4, body, kind="grid"))
    compare(k, filled(k, rng) | {"n": np.array([2])}, checked=checked)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", ["f32", "f64", "i32", "u8", "f16", "bf16"])
@pytest.mark.parametrize("lanes", [2, 8, 64])
def test_combining_lanes(dtype, lanes, target, rng):
    """The tree is fixed: lane i with lane i + half. Random signs and sizes make every other order differ."""
    d = BY_NAME[dtype]
    x = load("x", 0, d, lanes)
    names = ("sum", "prod", "max", "min")
    body = [store("o", n, loops.Lanes(d, 1, c, x)) for n, c in enumerate(names)]
    test = op("gt", x, const(0, d, lanes))
    body += [store("b", n, loops.Lanes(bool_, 1, c, test)) for n, c in enumerate(("any", "all"))]
    k = kernel([param("x", d, lanes), param("o", d, 4, "w"), param("b", bool_, 2, "w")], *body)
    arrays = filled(k, rng)
    if d.is_float:
        arrays["x"] = (rng.normal(0, 1, lanes) * 2.0 ** rng.integers(-3, 3, lanes)).astype(d.numpy)
    compare(k, arrays, target=TARGETS[target])


def test_maximum_of_lanes_passes_nan_on():
    k = kernel(
        [param("x", f32, 8), param("o", f32, 2, "w")],
        *(
            store("o", n, loops.Lanes(f32, 1, c, load("x", 0, f32, 8)))
            for n, c in enumerate(("max", "min"))
        ),
    )
    for at in range(8):
        x = np.arange(8, dtype=np.float32)
        x[at] = np.nan
        assert np.isnan(run_native(k, {"x": x, "o": np.zeros(2, np.float32)})["o"]).all()


def test_loops_and_branches(rng):
    """Bounds from outer variables, empty ranges, one trip, steps that do not divide, If with and without else."""
    i, j = var("i"), var("j")
    place = add(mul(i, 13), j)
    body = [
        loop("j", i, add(mul(i, 2), 1), [store("o", place, load("x", place, i32))], step=2),
        loop("j2", 5, 5, [store("o", 0, const(99, i32))]),
        loop("j3", 6, 3, [store("o", 0, const(99, i32))]),
        loop("j4", 6, 7, [store("o", add(mul(i, 13), var("j4")), const(5, i32))]),
        loops.If(
            op("gt", load("x", i, i32), const(2, i32)),
            (store("p", i, const(1, i32)),),
            (store("p", i, load("x", i, i32)),),
        ),
        loops.If(op("eq", i, const(2)), (store("q", i, const(8, i32)),)),
        loops.If(op("eq", const(1), const(2)), (store("q", 10**9, const(8, i32)),)),
    ]
    k = kernel(
        [param("x", i32, 91), *(param(n, i32, 91, "rw") for n in "opq")],
        loop("i", 0, 7, body, kind="grid"),
    )
    for threads in (1, 3, 7):
        compare(k, filled(k, rng), threads=threads)
        compare(k, filled(k, rng), threads=threads, checked=True)


def test_grid_with_offset_and_step(rng):
    k = kernel(
        [param("x", f32, 64), param("o", f32, 64, "rw")],
        loop("i", 5, 60, [store("o", var("i"), load("x", var("i")))], step=7, kind="grid"),
    )
    compare(k, filled(k, rng), threads=3)


@pytest.mark.parametrize("checked", [False, True])
def test_registers_and_local_buffers(checked, rng):
    """Registers through unrolled loops; a local buffer as a transposed tile; both fresh in every iteration."""
    i, r, j = var("i"), var("r"), var("j")
    body = [
        loops.Alloc("acc", f32, 8, 3, "register"),
        loops.Alloc("tile", f32, 1, 24, "local"),
        loop("r", 0, 3, [store("acc", r, splat(load("x", add(i, r)), 8))], kind="unroll"),
        loop(
            "k",
            0,
            4,
            [
                loop(
                    "r2",
                    0,
                    3,
                    [
                        let("y", load("y", mul(add(var("k"), var("r2")), 8), f32, 8)),
                        store(
                            "acc",
                            var("r2"),
                            op(
                                "fma",
                                var("y", f32, 8),
                                var("y", f32, 8),
                                load("acc", var("r2"), f32, 8),
                            ),
                        ),
                    ],
                    kind="unroll",
                )
            ],
        ),
        loop(
            "r3",
            0,
            3,
            [store("tile", mul(var("r3"), 8), load("acc", var("r3"), f32, 8))],
            kind="unroll",
        ),
        loop(
            "j",
            0,
            8,
            [
                loop(
                    "r4",
                    0,
                    3,
                    [
                        store(
                            "o",
                            add(add(mul(i, 24), mul(j, 3)), var("r4")),
                            load("tile", add(mul(var("r4"), 8), j)),
                        )
                    ],
                )
            ],
        ),
    ]
    k = kernel(
        [param("x", f32, 8), param("y", f32, 64), param("o", f32, 96, "w")],
        loop("i", 0, 4, body, kind="grid"),
    )
    compare(k, filled(k, rng), threads=2, checked=checked)


def test_shared_expressions_and_old_values(rng):
    """A load means the memory at its own statement, also if its object is used again later; a Let keeps the old value."""
    x = load("x", 0)
    k = kernel(
        [param("x", f32, 4, "rw")],
        let("before", x),
        store("x", 0, op("add", x, const(1, f32))),
        store("x", 1, op("mul", x, x)),
        store("x", 2, var("before", f32)),
        store("x", 3, op("sub", op("mul", x, x), x)),
    )
    compare(k, filled(k, rng))


def test_long_chains_need_no_recursion():
    value = load("x", 0)
    for _ in range(5000):
        value = op("neg", value)
    k = kernel([param("x", f32, 1), param("o", f32, 1, "w")], store("o", 0, value))
    got = run_native(k, {"x": np.ones(1, np.float32), "o": np.zeros(1, np.float32)})
    assert got["o"][0] == 1.0


def test_teams_of_one_and_teams_that_never_wait(rng):
    at = add(mul(var("g"), 4), var("l"))
    waits = [
        store("o", var("i"), loops.Cross(f32, 1, "sum", load("x", var("i")), "lane")),
        loops.Barrier("group"),
    ]
    one = loop("g", 0, 1, [loop("l", 0, 1, waits, kind="lane")], kind="group")
    many = loop(
        "g", 0, 2, [loop("l", 0, 4, [store("p", at, load("x", at))], kind="lane")], kind="group"
    )
    k = kernel(
        [param("x", f32, 8), param("o", f32, 8, "w"), param("p", f32, 8, "w")],
        loop("i", 0, 8, [one], kind="grid"),
    )
    compare(k, filled(k, rng))
    k = kernel([param("x", f32, 8), param("p", f32, 8, "w")], many)
    compare(k, filled(k, rng))


# --- bounds ------------------------------------------------------------------------------------------

WRONG = {
    "load": (store("o", 0, load("x", var("i"))), "x at element 8"),
    "store": (store("o", add(var("i"), -1), const(1, f32)), "o at element -1"),
    "vector": (store("o", 0, load("x", mul(var("i"), 3), f32, 4), active=4), "x at element 6"),
    "active": (store("o", var("i"), load("x", 0, f32, 8), active=2), "o at element 7"),
    "constant": (store("o", 0, load("x", 1000)), "x at element 1000"),
    "mask": (
        store("o", 0, load("x", var("i"), f32, 8, mask=const(1, bool_, 8))),
        "x at element 1",
    ),
    "ramp": (store("o", 0, load("x", loops.Ramp(i64, 8, var("i")), f32, 8)), "x at element 1"),
    "gather": (
        store("o", 0, load("x", mul(loops.Ramp(i64, 8, const(0)), const(3, i64, 8)), f32, 8)),
        "x at element 9",
    ),
    "every second": (
        store("o", 0, load("x", mul(loops.Ramp(i64, 8, const(0)), const(2, i64, 8)), f32, 8)),
        "x at element 7",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_checked_build_names_the_access(case):
    statement, message = WRONG[case]
    k = kernel(
        [param("x", f32, 8), param("o", f32, 8, "rw")],
        loop("i", 0, 9, [statement], kind="grid"),
        name="k_wrong",
    )
    with pytest.raises(
        TapeoutError, match=f"kernel k_wrong: access out of bounds: buffer {message}"
    ):
        run_native(k, {"x": np.zeros(8, np.float32), "o": np.zeros(8, np.float32)}, checked=True)


def test_checked_build_tests_local_buffers():
    body = [
        loops.Alloc("tile", f32, 1, 8, "local"),
        store("tile", load("i", 0, i64), const(1, f32)),
        store("o", 0, load("tile", 0)),
    ]
    k = kernel([param("i", i64, 1), param("o", f32, 1, "w")], *body)
    with pytest.raises(TapeoutError, match="buffer tile at element 8"):
        run_native(k, {"i": np.array([8]), "o": np.zeros(1, np.float32)}, checked=True)


# --- refused -----------------------------------------------------------------------------------------

REFUSED = {
    "threads that wait": (
        loop("g", 0, 2, [loops.Barrier("group")], kind="group"),
        "group loop of more than one iteration",
    ),
    "a sum over lanes": (
        loop(
            "l",
            0,
            4,
            [store("o", 0, loops.Cross(f32, 1, "sum", load("x", var("l")), "lane"))],
            kind="lane",
        ),
        "lane loop of more than one iteration",
    ),
    "a large local buffer": (
        loops.If(
            const(True, bool_),
            (loops.Alloc("big", f32, 1, 200_000, "local"), store("big", 0, const(1, f32))),
        ),
        "take 800000 bytes, 655360 fit",
    ),
    "a register by a variable": (
        loop(
            "i",
            0,
            2,
            [loops.Alloc("r", f32, 1, 2, "register"), store("r", var("i"), const(1, f32))],
        ),
        "is no constant",
    ),
    "a register that is not there": (
        loops.If(
            const(True, bool_),
            (loops.Alloc("r", f32, 1, 2, "register"), store("r", 2, const(1, f32))),
        ),
        "has 2 vectors, not one at 2",
    ),
    "half a register": (
        loops.If(
            const(True, bool_),
            (loops.Alloc("r", f32, 8, 2, "register"), store("r", 0, const(1, f32, 8), active=4)),
        ),
        "4 of 8 lanes",
    ),
    "a scatter": (
        store("o", loops.Ramp(i64, 8, const(0)), load("x", 0, f32, 8)),
        "vector of indices",
    ),
    "an unrolled loop of unknown length": (
        loop("i", 0, load("n", 0, i64), [store("o", 0, const(1, f32))], kind="unroll"),
        "no constants",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_reason(case):
    statement, message = REFUSED[case]
    k = kernel([param("x", f32, 8), param("o", f32, 8, "rw"), param("n", i64, 1)], statement)
    with pytest.raises(CompileError, match=message):
        cpu.emit_kernel(k, machine.native())


def test_functions_must_be_written_out_first():
    k = kernel(
        [param("x", f32, 1), param("o", f32, 1, "w")], store("o", 0, op("exp", load("x", 0)))
    )
    with pytest.raises(CompileError, match=r"exp on f32.*\n.*legalize"):
        cpu.emit_kernel(k, machine.native())


# --- text and machine code ---------------------------------------------------------------------------


def micro_kernel(rows, columns, depth, dtype=f32, lanes=16):
    """C[rows, columns] = A[rows, depth] B[depth, columns] with all of C in registers."""
    vectors = columns // lanes
    b = [
        let(f"b{v}", load("B", add(mul(var("k"), columns), v * lanes), dtype, lanes))
        for v in range(vectors)
    ]
    row = [let("a", splat(load("A", add(mul(var("r"), depth), var("k")), dtype), lanes))]
    for v in range(vectors):
        at = add(mul(var("r"), vectors), v)
        product = op(
            "fma", var("a", dtype, lanes), var(f"b{v}", dtype, lanes), load("acc", at, dtype, lanes)
        )
        row.append(store("acc", at, product))
    tiles = range(rows * vectors)
    return kernel(
        [
            param("A", dtype, rows * depth),
            param("B", dtype, depth * columns),
            param("C", dtype, rows * columns, "w"),
        ],
        loops.Alloc("acc", dtype, lanes, rows * vectors, "register"),
        *(store("acc", t, const(0, dtype, lanes)) for t in tiles),
        loop("k", 0, depth, [*b, loop("r", 0, rows, row, kind="unroll")]),
        *(store("C", t * lanes, load("acc", t, dtype, lanes)) for t in tiles),
    )


def inner_loop(assembly):
    """The lines between the label that a backward jump names and the jump, of the longest such loop."""
    lines = [line.strip() for line in assembly.splitlines()]
    labels = {line[:-1]: n for n, line in enumerate(lines) if line.endswith(":")}
    found = [
        lines[labels[line.split()[1]] : n]
        for n, line in enumerate(lines)
        if line.startswith("j") and labels.get(line.split()[1], n) < n
    ]
    return max(found, key=len)


@pytest.mark.parametrize(
    ("target", "rows", "columns", "dtype", "lanes", "register"),
    [
        ("avx2", 6, 16, f32, 16, "%ymm"),
        ("avx2", 6, 8, f64, 8, "%ymm"),
        ("avx512", 8, 48, f32, 16, "%zmm"),
        ("avx512", 6, 64, f32, 16, "%zmm"),
        ("avx512", 8, 24, f64, 8, "%zmm"),
    ],
)
def test_micro_kernels_stay_in_registers(target, rows, columns, dtype, lanes, register):
    chosen = TARGETS_BY_NAME[target]
    text = assembly(cpu.emit_kernel(micro_kernel(rows, columns, 64, dtype, lanes), chosen), chosen)
    hot = inner_loop(text)
    assert not [line for line in hot if "%rsp" in line], "spilled in the inner loop"
    width = (64 if register == "%zmm" else 32) // dtype.bytes
    fused = [line for line in hot if line.startswith("vfmadd") and register in line]
    assert len(fused) == rows * columns // width


@pytest.mark.parametrize("dtype", [f32, f64])
def test_micro_kernel_is_right(dtype, rng):
    k = micro_kernel(6, 16, 40, dtype, 8)
    arrays = {p.name: rng.normal(0, 1, p.size).astype(dtype.numpy) for p in k.params}
    compare(k, arrays)
    compare(k, arrays, checked=True)


def test_text_is_the_same_every_time():
    first, again = (cpu.emit_kernel(micro_kernel(6, 16, 64), AVX512) for _ in range(2))
    assert first == again


def test_text_of_a_small_kernel(golden):
    at = mul(var("i"), 8)
    k = kernel(
        [param("x", f32, 100), param("m", bool_, 8), param("o", f32, 100, "rw")],
        loop(
            "i",
            0,
            12,
            [
                let("y", op("max", load("x", at, f32, 8), const(0, f32, 8))),
                loops.If(
                    load("m", 0, bool_),
                    (
                        store(
                            "o",
                            at,
                            op("fma", var("y", f32, 8), var("y", f32, 8), load("o", at, f32, 8)),
                        ),
                    ),
                    (store("o", at, var("y", f32, 8), active=5),),
                ),
            ],
            kind="grid",
        ),
        name="k_small",
    )
    golden(cpu.emit_kernel(k, AVX2), "codegen/small.ll")
