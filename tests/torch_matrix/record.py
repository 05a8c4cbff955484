"""The record of the matrix, and the page that is made from it. Needs no PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.torch_matrix.case import VARIANTS

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "tests" / "records" / "torch_matrix.json"
PAGE = ROOT / "docs" / "reference" / "torch-modules.md"
STATUS = ("pass", "fail", "error", "export")

HEAD = """# PyTorch modules

Each of {modules} modules is exported by both exporters of PyTorch, imported, differentiated and compiled; the loss and the gradient of
every parameter and of every float input are held against autograd, all in f64. Attributes and constants of a file are f32, so figures agree
to 1e-6 of an entry; the models of Hugging Face, tiny and with random weights, compute parts in f32 whatever their weights are, and agree to
1e-4. `padding_idx`, which no file can say, is left out on PyTorch's side. Weights are random everywhere, also those of norms; an open batch
has another size than the one that was exported. `python -m tests.torch_matrix.run` makes this page; {versions}.

| column | exporter | operator set | batch |
|---|---|---|---|
{columns}

In the columns that end in `folded` the exporter was left to optimise for inference: what it folded into other tensors cannot be compared,
and is counted (`−2`: two parameters are gone). `static`: the exporter could not keep the batch open. Numbers refer to the notes below the
table; *export* means that PyTorch itself could not write the file.

"""


def read() -> dict[str, Any]:
    """Return the record."""
    return dict(json.loads(RECORD.read_text(encoding="utf-8")))


def write(record: dict[str, Any]) -> None:
    """Write it, one line for each module."""
    lines = [f"  {json.dumps(name)}: {json.dumps(by)}" for name, by in record["cases"].items()]
    RECORD.write_text(
        f'{{"versions": {json.dumps(record["versions"])},\n"cases": {{\n'
        + ",\n".join(lines)
        + "\n}}\n",
        encoding="utf-8",
    )


def counts(record: dict[str, Any]) -> dict[str, int]:
    """Return how many cases passed, failed, died, and could not be exported."""
    found = [case["status"] for by in record["cases"].values() for case in by.values()]
    return {status: found.count(status) for status in STATUS}


def page(record: dict[str, Any]) -> str:
    """Return the page."""
    versions = ", ".join(f"{p} {v}" for p, v in record["versions"].items())
    columns = "\n".join(
        f"| {v.name} | {v.exporter} | {v.opset} | {'open' if v.dynamic else 'fixed'} |"
        for v in VARIANTS.values()
    )
    number = counts(record)
    taken = sum(n for status, n in number.items() if status != "export")
    notes: dict[str, int] = {}
    rows = [
        f"| {name} | " + " | ".join(_cell(by.get(v), notes) for v in VARIANTS) + " |"
        for name, by in record["cases"].items()
    ]
    return "".join(
        (
            HEAD.format(modules=len(record["cases"]), versions=versions, columns=columns),
            f"{number['pass']} of {taken} exported files agree ({number['pass'] / max(taken, 1):.1%}); ",
            f"{number['export']} more could not be exported.\n\n",
            f"| module | {' | '.join(VARIANTS)} |\n|---|{'---|' * len(VARIANTS)}\n",
            "\n".join(rows) + "\n",
            _notes(notes),
        )
    )


def _cell(found: dict[str, Any] | None, notes: dict[str, int]) -> str:
    if found is None:
        return ""
    if found["status"] == "pass":
        extra = [f"−{found['folded']}"] if "folded" in found else []
        extra += ["static"] if "static" in found else []
        return " ".join(["✓", *extra])
    number = notes.setdefault(f"{found['status']}\t{found['reason']}", len(notes) + 1)
    return f"export {number}" if found["status"] == "export" else f"**✗** {number}"


def _notes(notes: dict[str, int]) -> str:
    if not notes:
        return ""
    lines = []
    for key, number in notes.items():
        status, _, why = key.partition("\t")
        who = "PyTorch" if status == "export" else "tapeout"
        lines.append(f"{number}. {who}: `{why.replace('`', chr(39))}`")
    return "\n## Notes\n\n" + "\n".join(lines) + "\n"
