"""Every public name says what it is."""

import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType

import pytest


def _public() -> Iterator[tuple[str, object]]:
    """Every name of the package's facade, with what is public inside of it."""
    try:
        package = importlib.import_module("tapeout")
    except ModuleNotFoundError:
        return
    yield "tapeout", package
    for name in getattr(package, "__all__", ()):
        yield from _members(f"tapeout.{name}", getattr(package, name))


def _members(path: str, thing: object) -> Iterator[tuple[str, object]]:
    yield path, thing
    if isinstance(thing, ModuleType):
        for name in getattr(thing, "__all__", ()):
            yield from _members(f"{path}.{name}", getattr(thing, name))
    if inspect.isclass(thing):
        own = ((name, value) for name, value in vars(thing).items() if not name.startswith("_"))
        for name, value in own:
            if inspect.isfunction(value) or isinstance(
                value, property | classmethod | staticmethod
            ):
                yield f"{path}.{name}", getattr(thing, name)


def test_public_names_have_docstrings() -> None:
    documented = (ModuleType, property)
    bare = [
        path
        for path, thing in _public()
        if (callable(thing) or isinstance(thing, documented)) and not inspect.getdoc(thing)
    ]
    assert not bare, f"no docstring: {', '.join(bare)}"


def test_public_names_are_typed() -> None:
    bare = []
    for path, thing in _public():
        if not inspect.isfunction(thing):
            continue
        signature = inspect.signature(thing)
        names = [
            name
            for name, parameter in signature.parameters.items()
            if parameter.annotation is inspect.Parameter.empty and name not in ("self", "cls")
        ]
        if signature.return_annotation is inspect.Signature.empty:
            names.append("the result")
        bare += [f"{path}: {name}" for name in names]
    assert not bare, "no type hint: " + ", ".join(bare)


@pytest.mark.parametrize("name", ["__version__"])
def test_facade_has(name: str) -> None:
    package = pytest.importorskip("tapeout")
    if not hasattr(package, name):
        pytest.skip(f"tapeout has no {name} yet")
    assert getattr(package, name)
