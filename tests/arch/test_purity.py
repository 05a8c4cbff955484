"""Same input, same output: no clock, no chance and no order of sets on the way to object code."""

import ast
from collections.abc import Iterator

from tests.arch.sources import COMPILE_ROOMS, Source, dotted, imports, sources

CLOCK_AND_CHANCE = ("time", "datetime", "random", "secrets", "uuid")
# A generator with its seed given is a function of the seed.
SEEDED = ("default_rng", "Generator", "Philox", "PCG64", "SeedSequence")


def _compile_sources() -> Iterator[Source]:
    return (source for source in sources() if source.room in COMPILE_ROOMS)


def test_one_reader_of_the_environment() -> None:
    faults = [
        f"{source.at(node)}: {name}"
        for source in sources()
        if source.name != "support/env.py"
        for node, name in _names(source.tree)
        if name in ("os.environ", "os.environb", "os.getenv")
    ]
    assert not faults, "only support/env.py reads the environment:\n" + "\n".join(faults)


def _names(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    yield from imports(tree)
    yield from ((node, dotted(node)) for node in ast.walk(tree))


def test_no_clock_and_no_chance() -> None:
    faults = [
        f"{source.at(node)}: imports {name}"
        for source in _compile_sources()
        for node, name in imports(source.tree)
        if name.split(".")[0] in CLOCK_AND_CHANCE
    ]
    assert not faults, "\n".join(faults)


def test_random_numbers_have_a_seed() -> None:
    faults = [
        f"{source.at(node)}: {dotted(node.func)}"
        for source in _compile_sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and _is_unseeded(node)
    ]
    assert not faults, "\n".join(faults)


def _is_unseeded(call: ast.Call) -> bool:
    module, _, name = dotted(call.func).rpartition(".")
    if module not in ("np.random", "numpy.random"):
        return False
    return name not in SEEDED or not (call.args or call.keywords)


def test_no_loop_over_a_set() -> None:
    """The order of a set of strings changes with PYTHONHASHSEED: sort it, or use a dict."""
    faults = [
        f"{source.at(iterated)}: loop over a set"
        for source in _compile_sources()
        for node in ast.walk(source.tree)
        for iterated in _iterated(node)
        if _is_set(iterated)
    ]
    assert not faults, "\n".join(faults)


def _iterated(node: ast.AST) -> Iterator[ast.expr]:
    """What the node runs over in an order that its result keeps."""
    if isinstance(node, ast.For):
        yield node.iter
    if isinstance(node, ast.ListComp | ast.DictComp | ast.GeneratorExp):
        yield from (generator.iter for generator in node.generators)
    if isinstance(node, ast.Call) and dotted(node.func) in ("list", "tuple", "enumerate", "iter"):
        yield from node.args[:1]


def _is_set(node: ast.expr) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    return isinstance(node, ast.Call) and dotted(node.func) in ("set", "frozenset")
