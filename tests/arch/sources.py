"""The source files of tapeout as the tests of this folder see them."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "tapeout"

# From a graph to its object code: what these rooms write depends on their input alone.
COMPILE_ROOMS = (
    "ir", "ops", "kernel", "frontend", "autodiff", "passes", "training", "schedule", "codegen",
    "export", "view",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """One file of the package."""

    path: Path

    @property
    def name(self) -> str:
        """Path below src/tapeout, as it is shown in messages."""
        return self.path.relative_to(PACKAGE).as_posix()

    @property
    def room(self) -> str:
        """The folder of src/tapeout it lies in; empty for the package's own files."""
        parts = self.path.relative_to(PACKAGE).parts
        return parts[0] if len(parts) > 1 else ""

    @cached_property
    def text(self) -> str:
        """The file as it is."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """The file, parsed."""
        return ast.parse(self.text, str(self.path))

    def at(self, node: ast.AST) -> str:
        """Where a node stands: file and line."""
        return f"{self.name}:{getattr(node, 'lineno', '?')}"


@cache
def sources() -> tuple[Source, ...]:
    """Every Python file of the package, in order of name."""
    return tuple(Source(path) for path in sorted(PACKAGE.rglob("*.py")))


def dotted(node: ast.AST) -> str:
    """`a.b.c` for a chain of attributes on a name, else the empty string."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([node.id, *reversed(parts)])


def imports(tree: ast.Module) -> Iterator[tuple[ast.stmt, str]]:
    """Every imported name with its statement: `from a.b import c` gives `a.b.c`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node, f"{'.' * node.level}{node.module or ''}.{alias.name}"
