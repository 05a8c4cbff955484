"""tapeout: a compiler for training. ONNX or Python in, the whole training step as native code out.

Importing this package imports none of onnx, llvmlite and networkx; each name below is loaded when it is first used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tapeout.support.errors import (
    BudgetError,
    CheckpointError,
    CompileError,
    DataError,
    NotDifferentiable,
    OnnxImportError,
    OptionError,
    ParseError,
    ShapeError,
    TapeoutError,
    UnboundDimension,
    UnsupportedOperator,
    VerifyError,
)

if TYPE_CHECKING:
    from tapeout.api import surgery
    from tapeout.api.check import check
    from tapeout.api.compile import Executable, compile, training_step
    from tapeout.api.gradcheck import gradcheck
    from tapeout.api.load import load_onnx, save_onnx
    from tapeout.api.profile import profile
    from tapeout.api.trainer import Trainer
    from tapeout.api.tune import tune
    from tapeout.api.view import view
    from tapeout.autodiff.gradients import gradients, hvp, jvp, vjp
    from tapeout.data.load import load as load_data
    from tapeout.export.torch import export_torch
    from tapeout.frontend import init, nn
    from tapeout.frontend.custom import custom_gradient
    from tapeout.frontend.dsl import Builder
    from tapeout.ir.dtype import bf16, bool_, f16, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64
    from tapeout.ir.graph import Graph
    from tapeout.training import losses, optimizers

__version__ = "0.1.0"

_WHERE = {
    "Builder": "tapeout.frontend.dsl",
    "Executable": "tapeout.api.compile",
    "Graph": "tapeout.ir.graph",
    "Trainer": "tapeout.api.trainer",
    "check": "tapeout.api.check",
    "custom_gradient": "tapeout.frontend.custom",
    "compile": "tapeout.api.compile",
    "export_torch": "tapeout.export.torch",
    "gradcheck": "tapeout.api.gradcheck",
    "load_data": "tapeout.data.load:load",
    "load_onnx": "tapeout.api.load",
    "profile": "tapeout.api.profile",
    "save_onnx": "tapeout.api.load",
    "training_step": "tapeout.api.compile",
    "tune": "tapeout.api.tune",
    "view": "tapeout.api.view",
    **dict.fromkeys(("gradients", "hvp", "jvp", "vjp"), "tapeout.autodiff.gradients"),
    **dict.fromkeys(
        (
            "bf16",
            "bool_",
            "f16",
            "f32",
            "f64",
            "i8",
            "i16",
            "i32",
            "i64",
            "u8",
            "u16",
            "u32",
            "u64",
        ),
        "tapeout.ir.dtype",
    ),
    "init": "tapeout.frontend.init:",
    "losses": "tapeout.training.losses:",
    "nn": "tapeout.frontend.nn:",
    "optimizers": "tapeout.training.optimizers:",
    "surgery": "tapeout.api.surgery:",
}

__all__ = [
    "BudgetError",
    "Builder",
    "CheckpointError",
    "CompileError",
    "DataError",
    "Executable",
    "Graph",
    "NotDifferentiable",
    "OnnxImportError",
    "OptionError",
    "ParseError",
    "ShapeError",
    "TapeoutError",
    "Trainer",
    "UnboundDimension",
    "UnsupportedOperator",
    "VerifyError",
    "bf16",
    "bool_",
    "check",
    "compile",
    "export_torch",
    "custom_gradient",
    "f16",
    "f32",
    "f64",
    "gradcheck",
    "gradients",
    "hvp",
    "i8",
    "i16",
    "i32",
    "i64",
    "init",
    "jvp",
    "load_data",
    "load_onnx",
    "losses",
    "nn",
    "optimizers",
    "profile",
    "save_onnx",
    "surgery",
    "training_step",
    "tune",
    "u8",
    "u16",
    "u32",
    "u64",
    "view",
    "vjp",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for."""
    if name not in _WHERE:
        raise AttributeError(f"module 'tapeout' has no attribute {name!r}")
    place, colon, attribute = _WHERE[name].partition(":")
    module = importlib.import_module(place)
    found = module if colon and not attribute else getattr(module, attribute or name)
    globals()[name] = found
    return found


class _Facade(ModuleType):
    """Keeps `tapeout.view` the function: importing the room of that name would put the module in its place."""

    def __setattr__(self, name: str, value: object) -> None:
        if name != "view":
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Facade


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
