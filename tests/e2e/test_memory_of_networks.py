"""What a training step keeps in memory, against what PyTorch saves for the same network."""

import pytest

import tapeout
from tapeout.api.stages import optimized, scheduled
from tests.e2e.networks import ROOT

SAVED = {"resnet": 10_625_156}
"""Bytes of the unique storages that PyTorch 2.13 hands to `saved_tensors_hooks` for 32 images, parameters excluded."""


@pytest.mark.parametrize("name", SAVED)
def test_gradients_activations_and_scratch_need_half_of_what_pytorch_saves(name: str) -> None:
    model = tapeout.load_onnx(ROOT / "models" / f"{name}.onnx").bind({"N": 32})
    step = tapeout.training_step(
        model, tapeout.losses.cross_entropy(), tapeout.optimizers.sgd(lr=0.1, momentum=0.9)
    )
    program = scheduled(optimized(step, "avx2"), "avx2")
    assert program.arena - program.layout.bytes <= SAVED[name] // 2
