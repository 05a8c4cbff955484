"""Whole programs run natively: results, checks, inputs, memory, threads, forks."""

import os
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace

import numpy as np
import pytest

from tapeout.codegen.build import build
from tapeout.codegen.machine import native
from tapeout.kernel.program import Launch
from tapeout.runtime.arena import Arena
from tapeout.runtime.executable import Executable
from tapeout.support.errors import DataError, OptionError, TapeoutError
from tests.programs import LIMIT, SIZE, sample_program

THREE = np.float32(3)


def executable(program=None, checked=True, **more):
    program = program or sample_program()
    objects, entry = build(program, native(), checked=checked)
    return Executable(program, objects, entry=entry, checked=checked, **more)


@pytest.fixture
def x(rng):
    return rng.normal(0, 1, SIZE).astype(np.float32)


@pytest.mark.parametrize("checked", [False, True])
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("work", [1, 10**6])
def test_items_run_in_order(x, checked, threads, work):
    ex = executable(sample_program(work), checked, threads=threads)
    ex.set_variable("w", x)
    for _ in range(3):
        before = ex.variable("w")
        assert ex.run({"x": x}) == 0
        np.testing.assert_array_equal(ex.output("o"), x * THREE)
        np.testing.assert_array_equal(ex.variable("w"), before - x * THREE)
        np.testing.assert_array_equal(ex.output("t"), ex.variable("w") + x * THREE)


def test_outputs_may_be_variables_inputs_and_constants(x):
    ex = executable()
    ex.run({"x": x})
    out = ex.outputs()
    assert list(out) == ["o", "t", "w", "x", "c"]
    np.testing.assert_array_equal(out["x"], x)
    np.testing.assert_array_equal(out["c"], [3])
    out["w"][:] = 9
    np.testing.assert_array_equal(ex.variable("w"), -x * THREE)


def test_a_failed_check_stops_before_updates(x):
    ex = executable()
    ex.run({"x": x})
    before = ex.variable("w")
    x[5] = LIMIT
    assert ex.run({"x": x}) == 7
    np.testing.assert_array_equal(ex.variable("w"), before)
    x[5] = 0
    assert ex.run({"x": x}) == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "no array for the input 'x'"),
        ({"X": np.zeros(SIZE, np.float32)}, "did you mean 'X'|no array for the input 'x'"),
        ({"x": np.zeros(SIZE)}, r"'x' is float64\[4096\], f32\[4096\] is expected"),
        ({"x": np.zeros((SIZE, 1), np.float32)}, r"float32\[4096, 1\]"),
        ({"x": np.zeros(SIZE - 1, np.float32)}, r"float32\[4095\]"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(given, message):
    with pytest.raises(DataError, match=message):
        executable().run(given)


def test_inputs_of_any_layout_are_taken(x):
    ex = executable()
    wide = np.zeros((SIZE, 2), np.float32)
    wide[:, 1] = x
    odd = np.zeros(SIZE * 4 + 1, np.uint8)[1:].view(np.float32)
    odd[:] = x
    frozen = x.copy()
    frozen.flags.writeable = False
    for given in (wide[:, 1], odd, frozen, x[::-1][::-1]):
        assert ex.run({"x": given}) == 0
        np.testing.assert_array_equal(ex.output("o"), x * THREE)


def test_variables_are_copied_and_checked(x):
    ex = executable()
    ex.set_variable("w", x)
    given = x.copy()
    x[:] = 0
    np.testing.assert_array_equal(ex.variable("w"), given)
    with pytest.raises(OptionError, match=r"no variable is called 'v'(.|\n)*'w'"):
        ex.variable("v")
    with pytest.raises(OptionError, match="no output is called 'oo'"):
        ex.output("oo")
    with pytest.raises(DataError, match=r"'w' is float32\[4096\], given is float32\[3\]"):
        ex.set_variable("w", np.zeros(3, np.float32))
    with pytest.raises(DataError, match="given is complex128"):
        ex.set_variable("w", np.zeros(SIZE, complex))


def test_threads_can_change_and_pools_are_shared(x):
    one, two = executable(threads=3), executable(threads=3)
    results = []
    for threads in (1, 3, 2, 3):
        for ex in (one, two):
            ex.set_threads(threads)
            assert ex.threads == threads
            ex.run({"x": x})
            results.append(ex.output("o"))
    for r in results[1:]:
        np.testing.assert_array_equal(r, results[0])
    with pytest.raises(OptionError, match="threads is 0"):
        one.set_threads(0)


def test_python_threads_take_turns(x):
    """Several threads of Python run programs of one pool at once."""
    made = [executable(threads=2) for _ in range(3)]
    faults, want = [], x * THREE

    def work(ex):
        good = [ex.run({"x": x}) == 0 and np.array_equal(ex.output("o"), want) for _ in range(50)]
        faults.extend(g for g in good if not g)

    workers = [threading.Thread(target=work, args=(ex,)) for ex in made]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not faults


def test_two_programs_share_one_arena(x):
    first = executable()
    other = Executable(
        first.program, build(first.program, native())[0], arena=first.arena, threads=1
    )
    first.set_variable("w", x)
    assert other.run({"x": x}) == 0
    np.testing.assert_array_equal(first.variable("w"), x - x * THREE)
    grown = Arena(first.program.arena + 128)
    grown.memory[: first.arena.bytes] = first.arena.memory
    first.bind(grown)
    np.testing.assert_array_equal(first.variable("w"), x - x * THREE)
    with pytest.raises(TapeoutError, match="of 64 bytes is given"):
        first.bind(Arena(64))


def test_access_out_of_bounds_is_named(x):
    program = sample_program()
    sizes = {
        k: replace(v, params=tuple(_halved(p) for p in v.params))
        for k, v in program.kernels.items()
    }
    ex = executable(replace(program, kernels=sizes))
    for _ in range(2):  # the record is emptied after it was read
        with pytest.raises(
            TapeoutError, match="kernel k_scale: access out of bounds: buffer o at element 2048"
        ):
            ex.run({"x": x})


def _halved(p):
    return replace(p, size=p.size // 2) if p.name == "o" else p


def test_checked_build_poisons_what_a_run_has_not_written(x):
    program = sample_program()
    kept = tuple(i for i in program.items if not (isinstance(i, Launch) and i.label == "sum"))
    ex = executable(replace(program, items=kept))
    ex.run({"x": x})
    assert np.isnan(ex.output("t")).all()


def test_objects_must_belong_together():
    program = sample_program()
    objects, _ = build(program, native())
    with pytest.raises(TapeoutError, match="one driver is expected"):
        Executable(program, {k: v for k, v in objects.items() if k != "tapeout_step"})
    del objects["k_sum"]
    with pytest.raises(TapeoutError, match="cannot be linked"):
        Executable(program, objects)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_runs_with_a_pool_of_its_own():
    """In a process of its own, so that nothing of the test runner is forked."""
    done = _child(
        """
        ex = executable(threads=2)
        x = np.ones(SIZE, np.float32)
        ex.run({"x": x})
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                code = ex.run({"x": x})
                sys.exit(20 + code + int(ex.variable("w")[0]))
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 20 - 6
        print("done", ex.run({"x": x}))
        """
    )
    assert done.stdout == "done 0\n", done.stderr
    assert done.returncode == 0


def test_results_do_not_depend_on_cores():
    """More threads than the cores that the process may use."""
    done = _child(
        """
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        ex = executable(threads=7)
        x = np.ones(SIZE, np.float32)
        print([ex.run({"x": x}) for _ in range(100)] == [0] * 100, ex.variable("w")[0])
        """
    )
    assert done.stdout == "True -300.0\n", done.stderr


def test_memory_past_the_arena_faults():
    """The arena is exactly as long as it says: the next access beyond its end ends the process."""
    done = _child(
        """
        ex = executable(guard=True, checked=False)
        x = np.ones(SIZE, np.float32)
        assert ex.run({"x": x}) == 0
        short = Arena(ex.program.arena - 4096, guard=True)
        short.bytes += 4096  # it lies
        ex.bind(short)
        print("ready", flush=True)
        ex.run({"x": x})
        print("not reached")
        """
    )
    assert done.stdout == "ready\n"
    assert done.returncode in (-11, -7)


def test_no_allocation_while_a_program_runs():
    """Python aside: the process may not ask the system for memory during a thousand runs."""
    done = _child(
        """
        import resource
        ex = executable(threads=2, checked=False)
        x = np.ones(SIZE, np.float32)
        given = {"x": x}
        for _ in range(100):
            ex.run(given)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(1000):
            ex.run(given)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        """
    )
    assert int(done.stdout) < 20, done.stdout + done.stderr


def _child(body):
    head = """
        import os, sys
        import numpy as np
        from tapeout.codegen.build import build
        from tapeout.codegen.machine import native
        from tapeout.runtime.arena import Arena
        from tapeout.runtime.executable import Executable
        from tests.programs import SIZE, sample_program

        def executable(checked=True, **more):
            program = sample_program()
            objects, entry = build(program, native(), checked=checked)
            return Executable(program, objects, entry=entry, checked=checked, **more)
    """
    code = textwrap.dedent(head) + textwrap.dedent(body)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
