"""What the tests of pages share: the blocks of a page, and a way to run them."""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


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
