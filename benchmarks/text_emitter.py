"""How fast LLVM IR is made: text against the builder of llvmlite, and which passes pay. Used by docs/adr/0005-text-emitter.md.

python benchmarks/text_emitter.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

from llvmlite import binding, ir

from tapeout.codegen import machine
from tapeout.codegen.cpu import emit_kernel
from tapeout.ir.dtype import f32, i64
from tapeout.kernel import loops
from tapeout.kernel.target import AVX2, Target

ROWS, VECTORS, LANES, DEPTH = 6, 1, 16, 256
COUNT = 100


def text_kernel(number: int) -> loops.Kernel:
    """The micro-kernel C[6, 16] = A[6, 256] B[256, 16] at level L."""

    def const(x: float, dtype=i64, lanes: int = 1) -> loops.Const:
        return loops.Const(dtype, lanes, x)

    def plus(a: loops.Expr, b: int) -> loops.Expr:
        return loops.Apply(i64, 1, "add", (a, const(b)))

    k = loops.Var(i64, 1, "k")
    b = loops.Var(f32, LANES, "b")
    row = loops.Apply(i64, 1, "mul", (k, const(LANES)))
    body: list[loops.Stmt] = [loops.Let(b, loops.Load(f32, LANES, "B", row))]
    for r in range(ROWS):
        a = loops.Splat(f32, LANES, loops.Load(f32, 1, "A", plus(k, r * DEPTH)))
        acc = loops.Load(f32, LANES, "acc", const(r))
        body.append(loops.Store("acc", const(r), loops.Apply(f32, LANES, "fma", (a, b, acc))))
    tiles = range(ROWS)
    return loops.Kernel(
        f"k_{number}",
        (
            loops.Param("A", f32, ROWS * DEPTH),
            loops.Param("B", f32, DEPTH * LANES),
            loops.Param("C", f32, ROWS * LANES, "w"),
        ),
        (
            loops.Alloc("acc", f32, LANES, ROWS, "register"),
            *(loops.Store("acc", const(r), const(0.0, f32, LANES)) for r in tiles),
            loops.For("k", const(0), const(DEPTH), 1, "serial", tuple(body)),
            *(
                loops.Store("C", const(r * LANES), loops.Load(f32, LANES, "acc", const(r)))
                for r in tiles
            ),
        ),
    )


def builder_kernel(number: int) -> str:
    """The same instructions by llvmlite's builder, with phis, as text."""
    module = ir.Module()
    word, single = ir.IntType(64), ir.FloatType()
    vector = ir.VectorType(single, LANES)
    pointer = ir.PointerType()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [pointer] * 3), f"k_{number}")
    fma = ir.Function(module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{LANES}f32")
    entry, head, after = (function.append_basic_block(n) for n in ("entry", "head", "after"))
    w = ir.IRBuilder(entry)
    w.branch(head)
    w.position_at_end(head)
    k = w.phi(word)
    k.add_incoming(word(0), entry)
    acc = [w.phi(vector) for _ in range(ROWS)]
    a, b, c = function.args
    place = w.gep(b, [w.mul(k, word(LANES))], inbounds=True, source_etype=single)
    row = w.load(place, align=4, typ=vector)
    for r in range(ROWS):
        at = w.gep(a, [w.add(k, word(r * DEPTH))], inbounds=True, source_etype=single)
        one = w.insert_element(ir.Constant(vector, ir.Undefined), w.load(at, typ=single), word(0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        wide = w.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)
        acc[r].add_incoming(ir.Constant(vector, [0.0] * LANES), entry)
        acc[r].add_incoming(w.call(fma, [wide, row, acc[r]]), head)
    following = w.add(k, word(1))
    k.add_incoming(following, head)
    w.cbranch(w.icmp_signed("<", following, word(DEPTH)), head, after)
    w.position_at_end(after)
    for r in range(ROWS):
        at = w.gep(c, [word(r * LANES)], inbounds=True, source_etype=single)
        w.store(acc[r].incomings[1][0], at, align=4)
    w.ret_void()
    return str(module)


def best(work: Callable[[], object], times: int = 5) -> float:
    """The shortest time of a few, in CPU seconds."""
    found = []
    for _ in range(times):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def passes(texts: list[str], target: Target, everything: bool) -> tuple[float, float, float]:
    """CPU seconds of parsing, optimising and generating code."""
    tm = machine.target_machine(machine.resolve(target))
    clock = [time.process_time()]
    modules = [binding.parse_assembly(t) for t in texts]
    clock.append(time.process_time())
    options = binding.create_pipeline_tuning_options(speed_level=3)
    if not everything:
        options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
    builder = binding.create_pass_builder(tm, options)
    for module in modules:
        manager = builder.getModulePassManager()
        if not everything:
            manager = binding.create_new_module_pass_manager()
            manager.add_sroa_pass()
            manager.add_instruction_combine_pass()
            manager.add_simplify_cfg_pass()
        manager.run(module, builder)
    clock.append(time.process_time())
    for module in modules:
        tm.emit_object(module)
    clock.append(time.process_time())
    return clock[1] - clock[0], clock[2] - clock[1], clock[3] - clock[2]


def main() -> None:
    """Print a table."""
    kernels = [text_kernel(n) for n in range(COUNT)]
    ways = {
        "text": lambda: [emit_kernel(k, AVX2) for k in kernels],
        "builder": lambda: [builder_kernel(n) for n in range(COUNT)],
    }
    for name, way in ways.items():
        seconds, lines = best(way), sum(t.count("\n") for t in way())
        print(
            f"{name:8} {1e3 * seconds / COUNT:6.2f} ms a kernel, {lines / seconds / 1e3:6.0f} k lines/s"
        )
    texts = ways["text"]()
    for name, everything in (("sroa + instcombine + simplifycfg", False), ("O3", True)):
        parse, optimise, generate = passes(texts, AVX2, everything)
        shown = " ".join(f"{1e3 * s / COUNT:.2f}" for s in (parse, optimise, generate))
        print(f"{name}: parse, optimise, generate {shown} ms a kernel")


if __name__ == "__main__":
    main()
