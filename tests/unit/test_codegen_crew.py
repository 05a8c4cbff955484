"""Kernels compiled by helper processes: the same code, and what happens when helpers fail."""

import sys

import pytest

from tapeout.codegen import crew as module
from tapeout.codegen.crew import Crew, compile_kernel
from tapeout.kernel.target import AVX2
from tapeout.schedule.lower import lower
from tapeout.support.errors import CompileError
from tests.unit.test_lower_contract import matmul


def kernels(count):
    found = {}
    for n in range(count):
        for call in lower(matmul(4 + n, 16, 8), AVX2).launches:
            found[call.kernel.name] = call.kernel
    return found


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(module, "FEWEST", 3)


@pytest.fixture(scope="module")
def alone():
    return Crew(AVX2, helpers=0).objects(kernels(5))


def test_helpers_give_the_same_code(few, alone):
    crew = Crew(AVX2, helpers=1)
    for kernel in kernels(5).values():
        crew.submit(kernel)
    assert crew.objects(kernels(5)) == alone


def test_helpers_do_everything_before_it_is_asked_for(few, alone, monkeypatch):
    crew = Crew(AVX2, helpers=1)
    for kernel in kernels(5).values():
        crew.submit(kernel)
    while len(crew._done) < len(kernels(5)):
        pass
    monkeypatch.setattr(module, "compile_kernel", None)
    assert crew.objects(kernels(5)) == alone


@pytest.mark.parametrize("program", ["/bin/false", "/nowhere/python"])
def test_helpers_that_fail_leave_the_work(few, alone, program, monkeypatch):
    monkeypatch.setattr(sys, "executable", program)
    monkeypatch.setattr(module.Path, "name", property(lambda self: "python"))
    assert Crew(AVX2, helpers=1).objects(kernels(5)) == alone


def test_kernels_that_are_of_no_use_are_left_out():
    crew = Crew(AVX2, helpers=0)
    for kernel in kernels(5).values():
        crew.submit(kernel)
    wanted = kernels(2)
    assert crew.objects(wanted).keys() == wanted.keys()


def test_errors_are_those_of_this_process(few, monkeypatch):
    def refuse(*_):
        raise CompileError("no")

    monkeypatch.setattr(module, "assemble", refuse)
    monkeypatch.setattr(module, "_process", lambda: None)
    with pytest.raises(CompileError, match="no"):
        Crew(AVX2, helpers=1).objects(kernels(5))


def test_code_is_kept_in_the_cache(tmp_path):
    from tapeout.codegen.cache import Store

    store = Store(tmp_path / "kernels")
    first = Crew(AVX2, cache=store, helpers=0).objects(kernels(2))
    assert store.usage().files == len(first)
    assert Crew(AVX2, cache=store, helpers=0).objects(kernels(2)) == first
    assert all(compile_kernel(k, AVX2, checked=False) == first[n] for n, k in kernels(2).items())
