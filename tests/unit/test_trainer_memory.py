"""What a trainer tells of its memory adds up."""

import pytest

import tapeout


@pytest.mark.parametrize("optimizer", [tapeout.optimizers.adam(), None])
def test_memory_adds_up(optimizer: object) -> None:
    with tapeout.Builder("mlp") as g:
        h = tapeout.nn.relu(tapeout.nn.linear(g.input("x", ("N", 20)), 16, name="fc1"))
        g.output("logits", tapeout.nn.linear(h, 3, name="fc2"))
    trainer = tapeout.Trainer(g.graph(), loss=tapeout.losses.cross_entropy(), optimizer=optimizer)
    m = trainer.memory_for(N=32)
    assert m.parameters + m.optimizer_state + m.gradients + m.activations == m.total
    size = 4 * (20 * 16 + 16 + 16 * 3 + 3)
    assert m.parameters == size
    assert size <= m.gradients < size + 64 * len(trainer.parameters), "each gradient counts once"
    assert m.activations > 0
