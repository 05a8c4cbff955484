"""The reference page of operations, made from their classes: `python -m tapeout.ops.reference`."""

from __future__ import annotations

import dataclasses
import inspect
from itertools import groupby

from tapeout.ir import op as kinds
from tapeout.ops import composite, control, sym

_HEAD = """# Operations

<!-- Made by `python -m tapeout.ops.reference`; a test compares. -->

What a graph is made of. In `.tape` text a node is `name{attributes} operands`; attributes at their default are left out.
A gradient is a *rule* of the class, or that of the *formula* that a composite decomposes into; where there is none, asking for one through
the operation is a `NotDifferentiable` error. What a rule gives at kinks follows PyTorch. To add an operation, see
[how-to](../how-to/add-an-op.md).
"""

# In the order of the page. A class belongs to the first kind it is of.
_SECTIONS: tuple[tuple[str, type[kinds.Op], str], ...] = (
    (
        "Composite",
        kinds.Composite,
        "Formulas of the others: differentiated first, decomposed late.",
    ),
    ("Control flow", control.Control, "Graphs inside nodes: loops over time, and branches."),
    ("Contraction", kinds.Contraction, "Sums of products of two operands."),
    ("Reduction", kinds.Reduction, "An expression combined over axes, which the result lacks."),
    ("Scatter", kinds.Scatter, "Elements added at places that another operand names."),
    ("Elementwise", kinds.Elementwise, "One expression of elements at the same index."),
    ("Pointwise", kinds.Pointwise, "Elements at other indices: data movement, gather, counting."),
)


def page() -> str:
    """Return the text of docs/reference/ops.md."""
    return _HEAD + "".join(
        f"\n## {title}\n\n{what}\n\n| operation | attributes | meaning | gradient |\n|---|---|---|---|\n{rows}"
        for (title, what), rows in _tables().items()
    )


def _tables() -> dict[tuple[str, str], str]:
    assert composite and control and sym  # the modules that register operations
    ours = [c for c in kinds.REGISTRY.values() if c.__module__.startswith("tapeout.ops.")]
    ordered = sorted(ours, key=lambda c: (_section(c), c.name))
    return {
        _SECTIONS[n][::2]: "".join(map(_row, found)) for n, found in groupby(ordered, key=_section)
    }


def _section(cls: type[kinds.Op]) -> int:
    return next(n for n, (_, kind, _) in enumerate(_SECTIONS) if issubclass(cls, kind))


def _row(cls: type[kinds.Op]) -> str:
    meaning = " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())
    cells = (f"`{cls.name}`", _attributes(cls), meaning, _gradient(cls))
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |\n"


def _attributes(cls: type[kinds.Op]) -> str:
    shown = []
    for f in dataclasses.fields(cls):
        known = f.default is not dataclasses.MISSING
        shown.append(f"`{f.name} = {f.default}`" if known else f"`{f.name}`")
    return ", ".join(shown)


def _gradient(cls: type[kinds.Op]) -> str:
    if issubclass(cls, control.Scan | control.Cond):
        return "rule"  # of `autodiff.scan`, which derives the regions
    inherited = (kinds.Op.pullback, kinds.Unary.pullback, kinds.Binary.pullback)
    if cls.pullback not in inherited:
        return "rule"
    if issubclass(cls, kinds.Unary | kinds.Binary):
        base = kinds.Unary.grad if issubclass(cls, kinds.Unary) else kinds.Binary.grad
        return "none" if cls.grad is base else "rule"
    return "formula" if issubclass(cls, kinds.Composite) else "none"


if __name__ == "__main__":
    print(page(), end="")
