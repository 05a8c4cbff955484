"""A subset of the matrix with the PyTorch that is installed: loss and every gradient by native code against autograd.

The whole of it is run by `python -m tests.torch_matrix.run`; test_record.py holds the page to its record.
"""

from __future__ import annotations

import importlib.util

import pytest

from tests.torch_matrix.case import VARIANTS
from tests.torch_matrix.fast import FAST, FAST_F32, FAST_HUGGINGFACE

pytestmark = pytest.mark.torch


def run(name: str, variant: str, *, wide: bool = True) -> None:
    from tests.torch_matrix.compare import check
    from tests.torch_matrix.worker import everything

    case = everything()[name]
    outcome = check(case, VARIANTS[variant], wide=wide)
    assert outcome.compared
    assert outcome.dynamic == VARIANTS[variant].dynamic


@pytest.mark.parametrize("variant", ["legacy17", "dynamo18"])
@pytest.mark.parametrize("name", FAST)
def test_module(name: str, variant: str) -> None:
    run(name, variant)


@pytest.mark.parametrize("name", FAST_F32)
def test_module_in_f32(name: str) -> None:
    run(name, "legacy17", wide=False)


@pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="needs transformers (make torch)"
)
@pytest.mark.parametrize("name", FAST_HUGGINGFACE)
def test_huggingface(name: str) -> None:
    run(name, "dynamo18")
