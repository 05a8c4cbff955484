"""Make docs/reference/benchmarks.md and its plot out of the history.

    python benchmarks/report.py                    # from benchmarks/history/*.jsonl

Each file of the history holds one line per workload and engine, appended by `benchmarks/run.py --history`, by
`benchmarks/operators.py` and by `benchmarks/micro.py`. The newest line of a cell counts; older ones remain as history.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT)]

from benchmarks.run import OURS, best_peer  # noqa: E402  (after the path is set)
from benchmarks.step import ENGINES  # noqa: E402
from benchmarks.workloads import WORKLOADS  # noqa: E402

Line = dict[str, Any]

HEAD = """\
# Benchmarks

<!-- Made by `python benchmarks/report.py` from benchmarks/history; a test compares. -->

Whole training steps (forward, loss, backward, update) against the engines that one would take instead, and single operators and
kernels. Every engine runs in a process of its own with the same first weights, batches and number of threads, as it is shipped;
repeats are interleaved; times are medians over the steps of a run, then over the repeats. **Ratio** is the other engine's time
divided by ours, taken inside of each repeat: above 1, tapeout is faster. Losses of the steps 0, 1 and 10 are compared: an
engine whose loss departs by more than 1e-3 does other work and is put in brackets (onnxruntime-training's SGD knows neither momentum nor weight decay).

`torch` is PyTorch eager, `-cl` with channels_last, `-compile` with `torch.compile`, `-mkl` with MKL made to take its AVX-512 path
on a processor that is not Intel's; optimisers are `fused=True`. `jax` is one jitted step that owns its state.

    python benchmarks/run.py --workloads all --against all --history benchmarks/history/NAME.jsonl
    python benchmarks/operators.py --history benchmarks/history/operators.jsonl
    python benchmarks/micro.py --history benchmarks/history/micro.jsonl
    python benchmarks/report.py
"""


def main() -> None:
    """Write the page and the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--history", default=str(HERE / "history"))
    parser.add_argument("--docs", default=str(ROOT / "docs"))
    args = parser.parse_args()
    lines = read(Path(args.history))
    docs = Path(args.docs)
    (docs / "reference" / "benchmarks.md").write_text(page(lines), encoding="utf-8")
    if lines:
        (docs / "images" / "benchmarks.svg").write_text(plot(lines), encoding="utf-8")


def read(folder: Path) -> list[Line]:
    """Return the lines of every file, in order of file and line."""
    return [
        json.loads(line)
        for path in sorted(folder.glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]


def page(lines: Sequence[Line]) -> str:
    """Return the page."""
    parts = [HEAD]
    steps = [r for r in lines if r.get("kind", "step") == "step"]
    if not lines:
        parts.append("Nothing has been measured with this version yet.")
    if steps:
        parts.append("\n![Best peer's time divided by ours](../images/benchmarks.svg)\n")
    for key, rows in sections(steps).items():
        parts.append("\n".join(_steps(key, rows)))
    for kind, title in (("operator", "Operators"), ("micro", "Kernels")):
        found = [r for r in lines if r.get("kind") == kind]
        for key, rows in sections(found).items():
            parts.append("\n".join(_ratios(title, key, rows)))
    return "\n".join(parts).rstrip() + "\n"


Key = tuple[str, int, str]


def sections(lines: Sequence[Line]) -> dict[Key, list[Line]]:
    """Return the newest line of each cell, by machine, precision and number of threads."""
    newest: dict[tuple[Any, ...], Line] = {}
    for r in lines:
        cell = (
            r["machine"],
            r["threads"],
            r["precision"],
            r.get("target", ""),
            r["workload"],
            r["engine"],
        )
        newest.pop(cell, None)
        newest[cell] = r
    found: dict[Key, list[Line]] = {}
    for r in newest.values():
        machine = r["machine"] + (f", code for {r['target']}" if r.get("target") else "")
        found.setdefault((machine, r["threads"], r["precision"]), []).append(r)
    return dict(sorted(found.items(), key=lambda s: (s[0][2] != "f32", -s[0][1], s[0][0])))


def _steps(key: Key, rows: Sequence[Line]) -> Iterator[str]:
    machine, threads, precision = key
    engines = [e for e in ENGINES if e != OURS and any(r["engine"] == e for r in rows)]
    yield f"\n## Steps: {precision}, {_threads(threads)}, {machine}\n"
    yield from _versions(rows)
    yield f"\n| workload | tapeout, ms | GFLOP/s | {' | '.join(engines)} | best peer ÷ ours | fastest step |"
    yield f"|---|---|---|{'---|' * len(engines)}---|---|"
    ratios = []
    for name in WORKLOADS:
        cells = {r["engine"]: r for r in rows if r["workload"] == name}
        if OURS not in cells:
            continue
        best = best_peer(list(cells.values()))
        if best is not None:
            ratios.append(float(best["ratio"]))
        ours = cells[OURS]
        shown = " | ".join(_cell(cells.get(e)) for e in engines)
        if "error" in ours:
            yield f"| {name} | {_wrong(ours)} | | {shown} | | |"
            continue
        summary = f"**{best['ratio']:.2f}** | {best['ratio_min']:.2f}" if best else "|"
        yield f"| {name} | {ours['ms_median']:.4g} | {ours['gflops']:.4g} | {shown} | {summary} |"
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        yield f"\nGeometric mean of the ratios to the best peer of each row: **{mean:.2f}** over {len(ratios)} rows, least {min(ratios):.2f}."
    yield from _memory(rows)


def _cell(r: Line | None) -> str:
    if r is None:
        return ""
    if "error" in r:
        return _wrong(r)
    text = f"{r['ms_median']:.4g}" + (f" ({r['ratio']:.2f})" if r.get("ratio") else "")
    return text if r["agrees"] else f"[{text}]"


def _wrong(r: Line) -> str:
    return f"failed: {r['error'][:60]}".replace("|", "\\|")


def _threads(n: int) -> str:
    return "1 thread" if n == 1 else f"{n} threads"


def _versions(rows: Sequence[Line]) -> Iterator[str]:
    known = dict.fromkeys(r["version"] for r in rows if r.get("version"))
    days = sorted({r["at"][:10] for r in rows})
    commits = dict.fromkeys(r["commit"] for r in rows if r.get("commit"))
    yield f"Measured {' to '.join(dict.fromkeys((days[0], days[-1])))} at {', '.join(commits)}: {', '.join(known)}."


def _memory(rows: Sequence[Line]) -> Iterator[str]:
    """Yield the table of memory and of the time until the first steps are done."""
    good = [r for r in rows if "error" not in r]
    ours = {r["workload"]: r for r in good if r["engine"] == OURS}
    if not ours:
        return
    yield "\nMemory of a process at its peak, over what it took after its imports, and seconds from there until the first 11 steps are done (compiling included; of the first repeat).\n"
    engines = [e for e in ENGINES if any(r["engine"] == e for r in good)]
    yield f"| workload | arena of tapeout, MiB | {' | '.join(f'{e}, MiB' for e in engines)} | {' | '.join(f'{e}, s' for e in engines)} |"
    yield f"|---|---|{'---|' * (2 * len(engines))}"
    for name in [n for n in WORKLOADS if n in ours]:
        cells = {r["engine"]: r for r in good if r["workload"] == name}
        arena = ours[name].get("memory", {}).get("total", 0) / 2**20
        sizes = [f"{cells[e]['peak_over_import_mib']:.0f}" if e in cells else "" for e in engines]
        ready = [f"{cells[e]['ready_first_s']:.1f}" if e in cells else "" for e in engines]
        yield f"| {name} | {arena:.1f} | {' | '.join(sizes)} | {' | '.join(ready)} |"


def _ratios(title: str, key: Key, rows: Sequence[Line]) -> Iterator[str]:
    machine, threads, precision = key
    yield f"\n## {title}: {precision}, {_threads(threads)}, {machine}\n"
    yield from _versions(rows)
    yield "\n| what | tapeout | other | ratio | of this machine's ceiling |"
    yield "|---|---|---|---|---|"
    for r in rows:
        other = f"{r['other_us']:.4g} µs ({r['other']})" if r.get("other_us") else ""
        ratio = f"**{r['ratio']:.2f}**" if r.get("ratio") else ""
        roof = f"{100 * r['of_roof']:.0f} %" if r.get("of_roof") else ""
        yield f"| {r['workload']} | {r['us']:.4g} µs | {other} | {ratio} | {roof} |"


# --- the plot -------------------------------------------------------------------------------------------

_WIDTH, _ROW, _LEFT, _TOP = 760.0, 26.0, 130.0, 46.0
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1d2127}.t{font-size:14px;font-weight:600}.b{fill:#2f6fb0}.s{fill:#9db8d2}.l{stroke:#b0414f}"
    ".g{fill:#fbfbf9}@media(prefers-color-scheme:dark){text{fill:#e8eaed}.g{fill:#15171a}}"
)


def plot(lines: Sequence[Line]) -> str:
    """Return the bars of the ratio to the best peer, of the first section of steps, as SVG."""
    found = sections([r for r in lines if r.get("kind", "step") == "step"])
    key, rows = next(iter(found.items()), (("", 0, ""), []))
    bars: list[tuple[str, float, str]] = []
    for name in WORKLOADS:
        best = best_peer([r for r in rows if r["workload"] == name])
        if best is not None:
            bars.append((name, float(best["ratio"]), best["engine"]))
    most = max([2.0, *(b[1] for b in bars)])
    scale = (_WIDTH - _LEFT - 150.0) / most
    height = _TOP + _ROW * len(bars) + 20.0
    one = _LEFT + scale
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:.0f} {height:.0f}" width="{_WIDTH:.0f}" role="img">',
        f"<title>Time of the best peer divided by ours</title><style>{_STYLE}</style>",
        '<rect class="g" width="100%" height="100%"/>',
        f'<text class="t" x="12" y="24">Time of a training step: best peer ÷ tapeout ({key[2]}, {_threads(key[1])})</text>',
    ]
    for i, (name, ratio, engine) in enumerate(bars):
        y = _TOP + i * _ROW
        parts.append(
            f'<text x="{_LEFT - 8:.0f}" y="{y + 15:.0f}" text-anchor="end">{name}</text>'
            f'<rect class="{"b" if ratio >= 1 else "s"}" x="{_LEFT:.0f}" y="{y + 3:.0f}" width="{scale * ratio:.1f}" height="16" rx="2"/>'
            f'<text x="{_LEFT + scale * ratio + 6:.1f}" y="{y + 15:.0f}">{ratio:.2f} × ({engine})</text>'
        )
    parts.append(
        f'<line class="l" x1="{one:.1f}" x2="{one:.1f}" y1="{_TOP - 4:.0f}" y2="{height - 14:.0f}"/></svg>\n'
    )
    return "".join(parts)


if __name__ == "__main__":
    main()
