"""Forms of a contraction: every one that may be chosen gives the same bits as the default."""

import numpy as np
import pytest

from tapeout.ir.dtype import bf16, f32
from tapeout.kernel.target import AVX2, AVX512, GENERIC
from tapeout.kernel.verify import verify_kernel
from tapeout.schedule.lower import lower
from tapeout.schedule.lower.contract.form import Form
from tapeout.schedule.lower.contract.lower import alternatives
from tapeout.schedule.lower.lower import choices
from tests.lowering import fill, run_native
from tests.unit.test_lower_contract import CONVOLUTIONS, NHWC, batched, convolution, matmul

KERNELS = {
    "NT": matmul(29, 70, 90, "NT"),
    "NN, long": matmul(50, 60, 700, "NN"),
    "TN, small": matmul(7, 10, 64, "TN"),
    "narrow": matmul(20, 33, 40, "NT", bf16, accumulate=f32),
    "cut along k": matmul(6, 17, 9000, "TN", bias=False),
    "batched": batched(3, 13, 20, 9),
    "convolution": convolution("fwd", CONVOLUTIONS["uneven"][0], NHWC, CONVOLUTIONS["uneven"][1]),
    "weight gradient": convolution("dw", (3, 64, 9, 8, 50, 2, 2), NHWC, 1, 1),
}


@pytest.mark.parametrize("name", KERNELS)
def test_every_choice_gives_the_same_bits(name):
    kernel = KERNELS[name]
    found = choices(kernel, AVX2)
    assert len(found) > 2 and len(set(found)) == len(found)
    arrays = fill(kernel)
    want = run_native(lower(kernel, AVX2), AVX2, arrays, checked=False)
    texts = set()
    # All are lowered and verified; every third one runs, and the first of each way to read an operand.
    for n, choice in enumerate(found):
        lowered = lower(kernel, AVX2, choice)
        for call in lowered.launches:
            verify_kernel(call.kernel)
        ways = " ".join(choice.split()[1:3])
        if n % 3 and ways in texts:
            continue
        texts.add(ways)
        got = run_native(lowered, AVX2, arrays, checked=n < 6, threads=2)
        for b in kernel.buffers:
            np.testing.assert_array_equal(got[b.name], want[b.name], choice)


@pytest.mark.parametrize("target", [AVX2, AVX512, GENERIC], ids=lambda t: t.name)
def test_a_choice_is_found_by_its_name(target):
    kernel = KERNELS["NT"]
    default = lower(kernel, target).launches[-1].kernel.name
    plans = alternatives(kernel, target, "s")
    names = [lower(kernel, target, p.choice).launches[-1].kernel.name for p in plans]
    assert names[0] == default and len(set(names)) > 2


@pytest.mark.parametrize("choice", ["", "m6x2", "m6x2 local direct panels=8 steps=90", "dots 2x2"])
def test_an_unknown_choice_is_the_default(choice):
    kernel = KERNELS["NT"]
    default = [call.kernel.name for call in lower(kernel, AVX2).launches]
    assert [call.kernel.name for call in lower(kernel, AVX2, choice).launches] == default


def test_forms_are_read_as_they_are_printed():
    form = Form(True, 6, 2, "lines", "panels", 4, 256)
    assert Form.parse(str(form)) == form
    assert Form.parse("m6x2 direct") is None
