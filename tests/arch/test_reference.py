"""The reference pages hold what the code holds."""

import importlib
import inspect
import re

import pytest

import tapeout
from tapeout.ops import reference
from tapeout.support import errors
from tests.arch.sources import ROOT

PAGES = ROOT / "docs" / "reference"


# Public for other rooms, of no use to a user.
INTERNAL = {"source", "origin", "evaluation", "modes", "imported", "session"}


def read(name: str) -> str:
    """Return the text of a reference page."""
    return (PAGES / name).read_text(encoding="utf-8")


def test_the_page_of_operations_is_true(pytestconfig: pytest.Config) -> None:
    """What it says is so. An operation that is new is missing until the page is made anew."""
    made, page = reference.page(), PAGES / "ops.md"
    if pytestconfig.getoption("--update-golden"):
        page.write_text(made, encoding="utf-8")
    shown = read("ops.md").splitlines()
    stale = [line for line in shown if line not in made.splitlines()]
    assert not stale, "python -m tapeout.ops.reference > docs/reference/ops.md"
    missing = [line.split("|")[1].strip() for line in made.splitlines() if line not in shown]
    if missing:
        pytest.skip(f"not on the page yet: {', '.join(missing)}")


def test_every_public_name_is_on_the_page_of_python() -> None:
    page = set(re.findall(r"[A-Za-z_]\w*", " ".join(re.findall(r"`([^`]+)`", read("python.md")))))
    names = set(tapeout.__all__)
    for cls in (tapeout.Builder, tapeout.Executable, tapeout.Graph, tapeout.Trainer):
        names.update(n for n in vars(cls) if not n.startswith("_"))
    names -= INTERNAL
    names.update(tapeout.nn.__all__)
    for room in (tapeout.init, tapeout.optimizers):
        names.update(functions(room.__name__))
    names.update(tapeout.losses.BY_NAME)
    assert not sorted(names - page), "docs/reference/python.md does not tell of these"


def functions(module: str) -> list[str]:
    """Return the public functions that a module defines."""
    found = vars(importlib.import_module(module)).items()
    return [n for n, f in found if inspect.isfunction(f) and f.__module__ == module and n[0] != "_"]


def test_signatures_on_the_page_of_python() -> None:
    """Every parameter that the page gives a function exists."""
    calls = re.findall(r"^\| `([\w.]+)\(([^`]*)\)` \|", read("python.md"), re.MULTILINE)
    wrong = []
    for call, given in calls:
        # Defaults may hold commas of their own.
        plain = re.sub(r"\([^)]*\)|\"[^\"]*\"", "0", given)
        names = set(re.findall(r"(?:^|, )\*{0,2}(\w+)(?==|,|$)", plain))
        if not any(names <= known for known in parameters(call)):
            wrong.append(call)
    assert len(calls) > 20
    assert not wrong, "the page gives these parameters that they do not have"


def parameters(name: str) -> list[set[str]]:
    """Return the parameters of what may be meant by a name: of the package, and of the trainer."""
    found = []
    for owner in (tapeout, tapeout.Trainer):
        thing: object = owner
        for part in name.split("."):
            thing = getattr(thing, part, None)
        if callable(thing):
            found.append(set(inspect.signature(thing).parameters))
    return found


def test_every_error_is_on_its_page() -> None:
    """With the class that it is a kind of."""
    rows = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", read("errors.md"), re.MULTILINE))
    known = {
        n: e.__mro__[1].__name__
        for n, e in vars(errors).items()
        if inspect.isclass(e) and issubclass(e, Exception)
    }
    assert rows == known
