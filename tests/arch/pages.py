"""What the tests of pages share: the blocks of a page, and ways to run them."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# A block of Python, and the block of text right behind it that shows what it prints.
SHOWN = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<text>.*?)^```\n)?", re.MULTILINE | re.DOTALL
)
_END = "--- end of a block ---"


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a page in a language, in order."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run(
    command: Sequence[str], folder: Path, extra: Mapping[str, str] | None = None, text: str = ""
) -> str:
    """Run a command in a folder and return what it printed; fail where it fails."""
    environment = {**os.environ, **(extra or {})}
    done = subprocess.run(
        command, cwd=folder, env=environment, input=text, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_blocks(page: Path, folder: Path, source: Path) -> list[str]:
    """Run the blocks of Python of a page one after the other as one script; return what each printed.

    Args:
        page: The page.
        folder: Where to run.
        source: The folder that holds the package.
    """
    script = folder / f"{page.stem}.py"
    script.write_text(f"\nprint({_END!r})\n".join(blocks(page, "python")), encoding="utf-8")
    printed = run([sys.executable, str(script)], folder, {"PYTHONPATH": str(source)})
    return printed.split(f"{_END}\n")


def with_output(page: str, printed: Sequence[str]) -> str:
    """Return the text of a page with each block of text after Python replaced by what was printed."""
    outputs = iter(printed)

    def renewed(found: re.Match[str]) -> str:
        output = next(outputs).rstrip() + "\n"
        code = f"```python\n{found['code']}```\n"
        return code if found["text"] is None else f"{code}\n```text\n{output}```\n"

    return SHOWN.sub(renewed, page)
