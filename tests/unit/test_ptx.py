"""PTX: every operation that the back end has goes through LLVM and ptxas, and what it has not is refused before LLVM sees it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tapeout.codegen.ptx import OPERATIONS, PTX, emit_kernel, emit_llvm, threads
from tapeout.ir.dtype import ALL, DType, bf16, bool_, f16, f32, f64, i64
from tapeout.ir.scalar import SCALAR_OPS
from tapeout.kernel import loops
from tapeout.kernel.functions import FUNCTIONS
from tapeout.kernel.math import legalize
from tapeout.kernel.verify import verify_kernel
from tapeout.support.errors import CompileError
from tests.unit.kernels import i, kernel, n

pytestmark = pytest.mark.ptx

MAP = """\
in a: f32[4096], in b: f32[4096], out c: f32[4096]
for %b in 0..8 grid {{
  for %w in 0..4 group {{
    for %l in 0..32 lane {{
      %i: i64 = (((%b * 128) + (%w * 32)) + %l) * 4
      store c[%i] = {value}
    }}
  }}
}}
"""


def _assemble(ptx: str, folder: Path, sm: str = "sm_80") -> str:
    """Return what ptxas says of registers, stack and spills."""
    source = folder / "k.ptx"
    source.write_text(ptx)
    tool = shutil.which("ptxas") or _wheel()
    command = [tool, f"-arch={sm}", "--verbose", str(source), "-o", str(folder / "k.cubin")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def _wheel() -> str:
    import nvidia

    return next(str(p) for root in nvidia.__path__ for p in Path(root).rglob("bin/ptxas"))


@pytest.mark.parametrize("sm", ["sm_80", "sm_90", "sm_120"])
def test_map_is_vectorised(sm: str, tmp_path: Path) -> None:
    k = kernel(MAP.format(value="max((a[%i :4] * b[%i :4]) + a[%i :4], 0.0:f32x4)"))
    verify_kernel(k)
    assert threads(k) == 128
    ptx = emit_kernel(k, sm)
    assert f".target {sm}" in ptx
    assert ".maxntid 128" in ptx
    assert len(re.findall(r"ld\.global\.nc\.v[24]", ptx)) == 2
    assert ptx.count("st.global.v4") == 1
    assert "fma.rn" not in ptx, "a product and a sum are not fused unless the kernel says so"
    report = _assemble(ptx, tmp_path, sm)
    assert "0 bytes stack frame, 0 bytes spill stores" in report


def test_fused_multiply_add_is_one_instruction() -> None:
    ptx = emit_kernel(kernel(MAP.format(value="fma(a[%i :4], b[%i :4], a[%i :4])")))
    assert ptx.count("fma.rn.f32") == 4


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_functions_need_no_library(name: str, tmp_path: Path) -> None:
    args = ", ".join(f"{x}[%i :4]" for x in "ab"[: SCALAR_OPS[name].arity])
    ptx = emit_kernel(kernel(MAP.format(value=f"{name}({args})")))
    assert "call" not in ptx
    assert "spill stores" in _assemble(ptx, tmp_path)


def all_operations(dtype: DType) -> loops.Kernel:
    """A kernel that stores the result of every operation on a type."""
    x, y, z = (loops.Load(dtype, 1, name, i("l")) for name in ("a", "b", "c"))
    params = [loops.Param(name, dtype, 32) for name in ("a", "b", "c")]
    stores: list[loops.Stmt] = []
    for op in sorted(OPERATIONS | {"rem"}):
        signature = SCALAR_OPS[op]
        if dtype.kind not in signature.kinds or (op == "rem" and dtype.is_float):
            continue
        args = (x, y, z)[: signature.arity]
        if op == "select":
            args = (loops.Apply(bool_, 1, "eq", (x, y)), y, z)
        result = bool_ if signature.result == "bool" else dtype
        params.append(loops.Param(f"r_{op}", result, 32, "w"))
        stores.append(loops.Store(f"r_{op}", i("l"), loops.Apply(result, 1, op, args)))
    for to in ALL:
        params.append(loops.Param(f"c_{to}", to, 32, "w"))
        stores.append(loops.Store(f"c_{to}", i("l"), loops.Cast(to, 1, x)))
    lane = loops.For("l", n(0), n(32), 1, "lane", tuple(stores))
    grid = loops.For("g", n(0), n(1), 1, "grid", (lane,))
    return loops.Kernel("all", tuple(params), (grid,))


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_every_operation_of_every_type_assembles(dtype: DType, tmp_path: Path) -> None:
    k = all_operations(dtype)
    verify_kernel(k)
    _assemble(emit_kernel(k), tmp_path)


REDUCE = """\
in x: {type}[1024], out y: {type}[8]
for %b in 0..8 grid {{
  alloc sh: {type}[4] shared
  for %w in 0..4 group {{
    for %l in 0..32 lane {{
      %v: {type} = x[((%b * 128) + (%w * 32)) + %l]
      %s: {type} = cross<max, lane>(%v)
      if eq(%l, 0) {{
        store sh[%w] = %s
      }}
      barrier group
      if eq(%l + %w, 0) {{
        store y[%b] = max(max(sh[0], sh[1]), max(sh[2], sh[3]))
      }}
    }}
  }}
}}
"""


@pytest.mark.parametrize("dtype", ["f32", "f64", "f16", "bf16", "i32", "i64", "u8", "bool"])
def test_threads_share_and_wait(dtype: str, tmp_path: Path) -> None:
    k = kernel(REDUCE.format(type=dtype))
    verify_kernel(k)
    ptx = emit_kernel(k)
    assert ptx.count("shfl.sync.bfly") == (10 if dtype in ("f64", "i64") else 5)
    assert ptx.count("bar.sync") + ptx.count("barrier.sync") == 1
    assert "ld.shared" in ptx
    _assemble(ptx, tmp_path)


def test_tails_become_branches(tmp_path: Path) -> None:
    text = MAP.format(value="exp(a[%i :4])").replace("4096", "4090")
    k = kernel(
        text.replace("store c[%i]", "if lt(%i, 4088) {\nstore c[%i]").replace(
            "exp(a[%i :4])", "exp(a[%i :4])\n}"
        )
    )
    verify_kernel(k)
    ptx = emit_kernel(k)
    assert "setp" in ptx
    _assemble(ptx, tmp_path)


def test_loops_over_fewer_warps_leave_some_out(tmp_path: Path) -> None:
    body = "for %w in 0..{n} group {{\nfor %l in 0..32 lane {{\nstore c[%l] = {v}\n}}\n}}\n"
    text = (
        "out c: f32[32]\nfor %b in 0..2 grid {\n"
        + body.format(n=4, v="1.0")
        + body.format(n=2, v="2.0")
        + "}"
    )
    k = kernel(text)
    assert threads(k) == 128
    _assemble(emit_kernel(k), tmp_path)


def test_masked_scalars_are_not_touched() -> None:
    text = MAP.format(value="splat<4>(a[%i mask lt(%i, 4000) else -1.0])")
    ptx = emit_kernel(kernel(text))
    assert "ld.global.nc.b32" in ptx
    assert "local" not in ptx


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MAP.format(value="rem(a[%i :4], b[%i :4])"), "rem of f32 is not supported"),
        (MAP.format(value="a[%i :4 mask lt(a[%i :4], b[%i :4])]"), "mask of several lanes"),
        (
            MAP.replace("c[%i]", "c[%i mask lt(a[%i :4], b[%i :4])]").format(value="a[%i :4]"),
            "mask of",
        ),
        (MAP.format(value="a[%i :4]").replace("0..4 group", "0..33 group"), "1024 at most fit"),
        (MAP.format(value="a[%i :4]").replace("0..32 lane", "0..33 lane"), "threads"),
        (
            "out c: f32[4]\nfor %b in 0..2 grid {\nstore c[%b] = 0.0\nfor %l in 0..32 lane {\n"
            "store c[2] = 0.0\n}\n}",
            "stored outside the lane loop",
        ),
        (
            "out c: f32[64]\nfor %b in 0..1 grid {\nfor %l in 0..32 lane {\nstore c[%l] = 0.0\n}\n"
            "for %m in 0..16 lane {\nbarrier lane\n}\n}",
            "leaves out threads that are waited for",
        ),
        (
            "out c: f32[64]\nfor %b in 0..1 grid {\nalloc s: f64[7000] shared\n"
            "for %l in 0..32 lane {\nstore c[%l] = 0.0\n}\n}",
            "49152 fit",
        ),
    ],
)
def test_what_it_cannot_do_is_refused(text: str, message: str) -> None:
    with pytest.raises(CompileError, match="codegen for PTX, kernel k") as e:
        emit_llvm(legalize(kernel(text), PTX))
    assert message in str(e.value)


def test_names_and_gpus_are_checked() -> None:
    k = kernel(MAP.format(value="a[%i :4]"))
    with pytest.raises(CompileError, match="names no GPU"):
        emit_kernel(k, "sm_80; rm")
    with pytest.raises(CompileError, match="no name that PTX takes"):
        emit_kernel(loops.Kernel('k"', k.params, k.body))


def test_a_crash_of_llvm_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operation that LLVM cannot select ends the process it runs in, which is not this one."""
    text = 'target triple = "nvptx64-nvidia-cuda"\ndefine ptx_kernel void @k(ptr %p, float %x) {\n'
    text += "  %y = call float @llvm.exp.f32(float %x)\n  store float %y, ptr %p\n  ret void\n}\n"
    monkeypatch.setattr("tapeout.codegen.ptx.emit_llvm", lambda kernel: text)
    with pytest.raises(CompileError, match=r"LLVM refuses it|no GPU has"):
        emit_kernel(kernel(MAP.format(value="a[%i :4]")))


def test_equal_kernels_give_equal_text() -> None:
    first, second = (emit_kernel(kernel(MAP.format(value="tanh(a[%i :4])"))) for _ in range(2))
    assert first == second
    assert re.search(r"\.visible \.entry k\(", first)
    assert {f16, bf16, f64, f32, i64} <= set(ALL)
