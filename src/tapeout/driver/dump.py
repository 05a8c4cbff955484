"""Writing each stage's text to a folder, numbered in order."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from tapeout.support.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from tapeout.driver.options import Options
    from tapeout.ir.graph import Graph
    from tapeout.kernel.program import Program


class Dumper:
    """Writes stages to `TAPEOUT_DUMP_DIR/<entry>/NN-<stage>.<kind>`; does nothing when no folder is given."""

    def __init__(self, options: Options, entry: str) -> None:
        """Prepare the folder."""
        self.folder: Path | None = options.dump_dir / entry if options.dump_dir else None
        self._wanted = [w for w in options.dump.split(",") if w] or ["all"]
        self._number = count()
        if self.folder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as e:
                raise DataError(
                    f"cannot make the folder: {e.strerror}", where=str(self.folder)
                ) from None

    @property
    def active(self) -> bool:
        """Whether anything is written."""
        return self.folder is not None

    def graph(self, stage: str, graph: Graph | None, changed: bool) -> None:
        """Write a graph with its tensors, so that a later run can start from it."""
        if not self._writes(stage) or graph is None:
            return
        from tapeout.ir.text import write_tape

        assert self.folder is not None
        path = self.folder / f"{next(self._number):02}-{stage}.tape"
        if changed:
            write_tape(path, graph)
        else:
            path.write_text("// (unchanged)\n", encoding="utf-8")

    def program(self, program: Program) -> None:
        """Write the program and its kernels."""
        if not self._writes("program"):
            return
        from tapeout.kernel.text import print_program

        self.text("program", "tape", print_program(program))

    def text(self, stage: str, suffix: str, text: str) -> None:
        """Write any text (LLVM IR, assembly)."""
        if self.folder is not None and self._writes(stage):
            (self.folder / f"{next(self._number):02}-{stage}.{suffix}").write_text(
                text, encoding="utf-8"
            )

    def _writes(self, stage: str) -> bool:
        return self.folder is not None and ("all" in self._wanted or stage in self._wanted)
