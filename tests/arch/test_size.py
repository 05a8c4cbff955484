"""Small files: about 300 lines is the aim, 600 gets a mention, 900 is refused."""

import warnings

import pytest

from tests.arch.sources import sources

MENTIONED = 600
REFUSED = 900


@pytest.mark.filterwarnings("default::UserWarning")
def test_files_are_small() -> None:
    sizes = {source.name: source.text.count("\n") for source in sources()}
    large = {name: lines for name, lines in sizes.items() if lines > MENTIONED}
    if large:
        listed = ", ".join(f"{name} ({lines})" for name, lines in large.items())
        warnings.warn(f"files over {MENTIONED} lines: {listed}", stacklevel=1)
    too_large = {name: lines for name, lines in large.items() if lines > REFUSED}
    assert not too_large, f"over {REFUSED} lines, to be divided by subject: {too_large}"
