"""The same graph gives the same program text, whatever the order of hashing."""

import os
import subprocess
import sys

SCRIPT = """
from tapeout.ir.build import Builder
from tapeout.ir.dtype import f32
from tapeout.ir.type import TensorType
from tapeout.kernel.target import AVX2
from tapeout.kernel.text import print_program
from tapeout.ops.sym import Sym
from tapeout.schedule.build import schedule
from tapeout.schedule.layout import plan_variables

b = Builder("step")
x = Sym(b, b.add_input("x", TensorType(f32, (4, 8, 9, 9))))
h = x
for i in range(2):
    w = Sym(b, b.add_variable(f"w{i}", TensorType(f32, (8, 8, 3, 3))))
    h = h.conv(w, strides=(1, 1), low=(1, 1), high=(1, 1)).relu() + h
    b.set_update(f"w{i}", (w * 0.5 - h.sum([0, 2, 3]).sum().broadcast_to(w.shape)).value)
e = (h - h.max([1], keepdims=True)).exp()
b.set_output("p", (e / e.sum([1], keepdims=True)).value)
b.add_check((h.sum() > 1e9).value, "large")
graph = b.graph()
print(print_program(schedule(graph, plan_variables(graph.variables), AVX2)))
"""


def _text(seed: int) -> str:
    environment = {
        **os.environ,
        "PYTHONHASHSEED": str(seed),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_text_of_a_program_does_not_depend_on_hashing() -> None:
    first = _text(0)
    assert first.count("launch") > 5
    assert all(_text(seed) == first for seed in (1, 12345))
