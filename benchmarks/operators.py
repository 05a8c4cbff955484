"""Single operators at about a million elements, forward and backward, against PyTorch eager.

    python benchmarks/operators.py --torch-python /path/to/python

PyTorch exports each row as ONNX, which tapeout reads. A run is the result and its product with a fixed cotangent taken back to every
float operand. Both engines run in processes of their own, in turn, and their results and gradients are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from benchmarks.run import cell_of  # noqa: E402  (after the path is set)

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One row.

    Attributes:
        name: What is computed.
        shapes: Of the operands; one whose name begins with `i` holds integers below `bound`.
        formula: In PyTorch: takes the package and the tensors.
        bound: For integers.
        distinct: Whether no two numbers are equal, so that there is one order of them.
        part: What is timed: `forward`, the gradient of one operand, or `both`: the result and all gradients.
        gflop: Multiply-adds of it times two, in 10^9, where that is what it is about.
    """

    name: str
    shapes: dict[str, tuple[int, ...]]
    formula: Callable[..., Any]
    bound: int = 1
    distinct: bool = False
    part: str = "both"
    gflop: float = 0.0

    @property
    def floats(self) -> list[str]:
        """Names of the operands that have gradients."""
        return [n for n in self.shapes if not n.startswith("i")]

    @property
    def wrt(self) -> list[str]:
        """Names of the operands whose gradients are timed."""
        return {"both": self.floats, "forward": []}.get(self.part, [self.part])

    def arrays(self) -> Arrays:
        """Return the operands."""
        rng = np.random.default_rng(0)
        if self.distinct:
            return {
                n: rng.permutation(int(np.prod(s))).reshape(s).astype(np.float32)
                for n, s in self.shapes.items()
            }
        return {
            n: rng.standard_normal(s, np.float32)
            if n in self.floats
            else rng.integers(0, self.bound, s)
            for n, s in self.shapes.items()
        }


_N = 1024
_SQUARE = {"x": (_N, _N)}
_TWO = {"x": (_N, _N), "y": (_N, _N)}
_IMAGE = {"x": (8, 64, 48, 48)}
_ROWS = {"x": (4096, 256), "i": (4096,)}
_PLACES = {"x": (_N, _N), "i": (_N, _N)}

CASES = (
    Case("softmax", _SQUARE, lambda t, x: t.softmax(x, -1)),
    Case("log softmax", _SQUARE, lambda t, x: t.log_softmax(x, -1)),
    Case("layer norm", {**_SQUARE, "w": (_N,), "b": (_N,)}, lambda t, x, w, b: t.nn.functional.layer_norm(x, (_N,), w, b)),
    Case("batch norm", {**_IMAGE, "w": (64,), "b": (64,)}, lambda t, x, w, b: t.nn.functional.batch_norm(x, t.zeros(64), t.ones(64), w, b, True)),
    Case("cumsum, last axis", _SQUARE, lambda t, x: t.cumsum(x, 1)),
    Case("cumsum, first axis", _SQUARE, lambda t, x: t.cumsum(x, 0)),
    Case("gather rows", _ROWS, lambda t, x, i: t.nn.functional.embedding(i, x), 4096),
    Case("gather, last axis", _PLACES, lambda t, x, i: t.gather(x, 1, i), _N),
    Case("gather, first axis", _PLACES, lambda t, x, i: t.gather(x, 0, i), _N),
    Case("scatter-add, last axis", _PLACES, lambda t, x, i: t.zeros(_N, _N).scatter_add(1, i, x), _N),
    Case("scatter-add, first axis", _PLACES, lambda t, x, i: t.zeros(_N, _N).scatter_add(0, i, x), _N),
    Case("top 10", _SQUARE, lambda t, x: t.topk(x, 10, 1)[0], distinct=True),
    Case("sort", {"x": (8192, 128)}, lambda t, x: t.topk(x, 128, 1)[0], distinct=True),
    Case("max pool 2x2", _IMAGE, lambda t, x: t.nn.functional.max_pool2d(x, 2)),
    Case("max pool 3x3 stride 2", _IMAGE, lambda t, x: t.nn.functional.max_pool2d(x, 3, 2, 1)),
    Case("mean pool 2x2", _IMAGE, lambda t, x: t.nn.functional.avg_pool2d(x, 2)),
    Case("resize twice, bilinear", {"x": (4, 16, 64, 64)}, lambda t, x: t.nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear")),
    Case("resize twice, nearest", {"x": (4, 16, 64, 64)}, lambda t, x: t.nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")),
    Case("tanh(x) * y + exp(-x*x)", _TWO, lambda t, x, y: t.tanh(x) * y + t.exp(-x * x)),
    Case("gelu by erf", _SQUARE, lambda t, x: t.nn.functional.gelu(x)),
    Case("sum, last axis", _SQUARE, lambda t, x: t.sum(x * x, 1)),
    Case("sum, first axis", _SQUARE, lambda t, x: t.sum(x * x, 0)),
    Case("max, last axis", _SQUARE, lambda t, x: t.amax(x, 1)),
    Case("max, first axis", _SQUARE, lambda t, x: t.amax(x, 0)),
    Case("log-sum-exp", _SQUARE, lambda t, x: t.logsumexp(x, 1)),
    Case("transpose, add", _TWO, lambda t, x, y: x.t() + y),
    Case("einsum bhqd,bhkd->bhqk", {"x": (8, 8, 128, 64), "y": (8, 8, 128, 64)}, lambda t, x, y: t.einsum("bhqd,bhkd->bhqk", x, y)),
    Case("where(x > y, x, y*y)", _TWO, lambda t, x, y: t.where(x > y, x, y * y)),
    Case("pad, slice", {"x": (4, 64, 64, 64)}, lambda t, x: t.nn.functional.pad(x, (2, 2, 2, 2))[:, :, 1:-1, 1:-1]),
    Case("concatenate, relu", {"x": (_N, 512), "y": (_N, 512)}, lambda t, x, y: t.relu(t.cat([x, y], 1))),
)  # fmt: skip


def main(cases: Sequence[Case], kind: str, file: str, about: str | None) -> None:
    """Measure and print; `file` runs one engine of the same cases in a process of its own."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--only", default="", help="parts of the names of the rows to run, with | between"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.3, help="per row and repeat")
    parser.add_argument("--torch-python", default=sys.executable)
    parser.add_argument("--history", default="", help="JSON lines to append to")
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    parser.add_argument(
        "--engine", default="", choices=["", "tapeout", "torch"], help=argparse.SUPPRESS
    )
    args = parser.parse_args()
    args.cases, args.kind, args.file = cases, kind, file
    if args.engine:
        _child(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        _parent(args, folder)


def _parent(args: argparse.Namespace, folder: str) -> None:
    runs: dict[str, list[dict[str, Any]]] = {"torch": [], "tapeout": []}
    for _ in range(args.repeats):
        for engine, python in (("torch", args.torch_python), ("tapeout", sys.executable)):
            command = [
                python,
                args.file,
                "--engine",
                engine,
                "--folder",
                folder,
                "--only",
                args.only,
            ]
            command += ["--threads", str(args.threads), "--seconds", str(args.seconds)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{engine}: {done.stderr[-2000:]}")
            runs[engine].append(json.loads(done.stdout.strip().splitlines()[-1]))
    lines = [_line(args, case.name, runs) for case in args.cases if case.name in runs["tapeout"][0]]
    for r in lines:
        if "error" in r:
            print(f"{r['workload']:28} {r['error']}")
            continue
        print(
            f"{r['workload']:28} tapeout {r['us']:10.1f} us   torch {r['other_us']:10.1f} us   {r['ratio']:6.2f}"
        )
        if "of_roof" in r:
            print(f"    {100 * r['of_roof']:.0f} % of the ceiling")
        if r["ratio"] < 1:
            print(f"    {r['longest']}")
    if args.history:
        with Path(args.history).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(r) + "\n" for r in lines)


def _line(
    args: argparse.Namespace, name: str, runs: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    base = {"kind": args.kind, **cell_of(name, "tapeout", args.threads, "f32")}
    pairs = list(
        zip((r[name] for r in runs["tapeout"]), (r[name] for r in runs["torch"]), strict=True)
    )
    wrong = next((o["error"] for o, _ in pairs if "error" in o), None)
    if wrong is not None:
        return {**base, "error": wrong}
    return {
        **base,
        "version": runs["tapeout"][0]["version"],
        "us": round(statistics.median(o["us"] for o, _ in pairs), 2),
        "other": runs["torch"][0]["version"],
        "other_us": round(statistics.median(t["us"] for _, t in pairs), 2),
        "longest": pairs[0][0]["longest"],
        **({"of_roof": pairs[0][0]["of_roof"]} if "of_roof" in pairs[0][0] else {}),
        "ratio": round(statistics.median(t["us"] / o["us"] for o, t in pairs), 3),
    }


# --- one engine in its own process ----------------------------------------------------------------------


def _child(args: argparse.Namespace) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(args.threads)
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: args.threads]))
    run = _torch if args.engine == "torch" else _tapeout
    found: dict[str, Any] = {}
    for case in args.cases:
        if any(part in case.name for part in args.only.split("|")):
            found[case.name] = run(case, args, Path(args.folder) / f"{args.cases.index(case)}")
    found["version"] = _version(args.engine)
    print(json.dumps(found))


def _version(engine: str) -> str:
    import importlib

    return f"{engine} {importlib.import_module(engine).__version__}"


def _clock(call: Callable[[], Any], seconds: float) -> float:
    """Return the median microseconds of a call."""
    times: list[float] = []
    call()
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def _torch(case: Case, args: argparse.Namespace, path: Path) -> dict[str, Any]:
    import torch

    torch.set_num_threads(args.threads)
    given = {n: torch.from_numpy(a) for n, a in case.arrays().items()}
    for n in case.floats:
        given[n].requires_grad_()
    if not path.with_suffix(".npz").exists():
        _export(case, given, torch, path)
    cotangent = torch.from_numpy(np.load(path.with_suffix(".npz"))["cotangent"])

    wrt = [given[n] for n in case.wrt]
    kept = case.formula(torch, *given.values()) if case.part not in ("both", "forward") else None

    def call() -> None:
        if case.part == "forward":
            with torch.no_grad():
                case.formula(torch, *given.values())
            return
        y = case.formula(torch, *given.values()) if kept is None else kept
        torch.autograd.grad(y, wrt, cotangent, retain_graph=kept is not None)

    return {"us": _clock(call, args.seconds)}


def _export(case: Case, given: dict[str, Any], torch: Any, path: Path) -> None:
    """Write the row as ONNX, and operands, cotangent, result and gradients."""
    net = torch.nn.Module()
    net.forward = lambda *xs: case.formula(torch, *xs)
    y = net(*given.values())
    cotangent = torch.from_numpy(
        np.random.default_rng(9).standard_normal(tuple(y.shape), np.float32)
    )
    grads = torch.autograd.grad(y, [given[n] for n in case.floats], cotangent)
    torch.onnx.export(
        net.train(), tuple(t.detach() for t in given.values()), str(path.with_suffix(".onnx")), dynamo=False, opset_version=18,
        input_names=list(given), output_names=["result"], training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False,
    )  # fmt: skip
    np.savez(
        path.with_suffix(".npz"), cotangent=cotangent.numpy(), result=y.detach().numpy(),
        **{f"grad_{n}": g.numpy() for n, g in zip(case.floats, grads, strict=True)},
    )  # fmt: skip


def _tapeout(case: Case, args: argparse.Namespace, path: Path) -> dict[str, Any]:
    import tapeout

    known = np.load(path.with_suffix(".npz"))
    inputs = {**case.arrays(), "cotangent/result": known["cotangent"]}
    try:
        graph = tapeout.load_onnx(path.with_suffix(".onnx"), mode="as-exported")
        if case.wrt:
            graph = tapeout.vjp(graph, "result", case.wrt)
        if case.part not in ("both", "forward"):
            graph = replace(graph, outputs=tuple(o for o in graph.outputs if o[0] != "result"))
        inputs = {n: a for n, a in inputs.items() if n in graph.input}
        program = tapeout.compile(graph, threads=args.threads)
        found = program(inputs)
    except tapeout.TapeoutError as error:
        return {"error": str(error)[:200]}
    wanted = {"result": known["result"], **{f"vjp/{n}": known[f"grad_{n}"] for n in case.wrt}}
    wanted = {n: a for n, a in wanted.items() if n in found}
    for name, want in wanted.items():
        scale = float(np.abs(want).max()) or 1.0
        if float(np.abs(found[name] - want).max()) > 1e-4 * scale:
            return {"error": f"{name} is not torch's"}
    # The time inside of native code: outputs stay where they are, as PyTorch's do.
    profile = tapeout.profile(program, inputs, seconds=args.seconds)
    longest = [(k.label, round(k.seconds * 1e6)) for k in profile.kernels[:3]]
    made = {"us": profile.native * 1e6, "longest": longest}
    if case.gflop:
        made["of_roof"] = round(case.gflop * 1e9 / profile.native / profile.ceiling.flops, 3)
    return made


if __name__ == "__main__":
    main(CASES, "operator", __file__, __doc__)
