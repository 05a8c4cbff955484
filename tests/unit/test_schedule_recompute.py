"""Products of what is kept anyway are computed by their readers, not handed over in memory."""

from tapeout.ir.build import Builder
from tapeout.ir.dtype import f64
from tapeout.ir.type import TensorType
from tapeout.kernel.compute import ContractionKernel
from tapeout.ops.composite import norm
from tapeout.ops.sym import Sym
from tapeout.schedule.fuse import fuse
from tapeout.schedule.recompute import LEAST_BYTES
from tests.unit.test_schedule_fuse import Net

SHAPE = (64, 96)


def kept(net: Net, shape: tuple[int, ...] = SHAPE) -> list[str]:
    """Run a net; return the names of the values of a shape that its kernels write."""
    works = net.run()
    homes = {h.name: h for w in works for h in w.homes}
    written = dict.fromkeys(n for w in works for n in w.writes if n in homes)
    return [n for n in written if homes[n].type.shape == shape]


def test_a_layer_norm_backward_stores_no_products() -> None:
    net = Net()
    x, y = net.input("x", *SHAPE), net.input("y", *SHAPE)
    w, v = net.parameter("w", 96, 96), net.parameter("v", 96, 96)
    scale, bias = net.parameter("g", 96), net.parameter("b", 96)
    h, _, _ = norm.layer_norm(x @ w, scale, bias, (1,), 1e-5)
    loss = ((h @ v) * y).sum()
    net.train(loss, net.sgd)
    # x @ w, that without its mean, the norm; the gradients of the norm and of x @ w.
    assert len(kept(net)) <= 5


def test_a_factor_of_a_contraction_is_kept() -> None:
    net = Net()
    a = net.input("x", *SHAPE).tanh()
    b = a * a
    net.output(one=b @ net.parameter("w", 96, 96), two=(b + 1.0).sum(1), three=a.sum(0))
    contraction = next(w for w in net.run() if isinstance(w.kernel, ContractionKernel))
    assert len(contraction.reads) == 2


def test_what_few_kept_values_give_is_not_kept() -> None:
    net = Net()
    a = net.input("x", *SHAPE).tanh()
    b = a * a - 1.0
    net.output(one=a.sum(0), two=b.sum(0), three=(b * a).exp().sum(1))
    assert len(kept(net)) == 1


def test_what_costs_much_is_kept() -> None:
    net = Net()
    a = net.input("x", *SHAPE).tanh()
    b = a.exp()
    net.output(one=a.sum(0), two=b.sum(0), three=(b * a).sum(1))
    assert len(kept(net)) == 2


def test_small_values_are_kept() -> None:
    net = Net()
    a = net.input("x", 8, 8).tanh()
    assert a.type.bytes < LEAST_BYTES
    b = a * a - 1.0
    net.output(one=a.sum(0), two=b.sum(0), three=(b * a).exp().sum(1))
    assert len(kept(net, (8, 8))) == 2


def test_an_updated_variable_is_read_before_it_changes() -> None:
    """What is computed anew reads variables where its readers stand, all of them before the update."""
    net = Net()
    w = net.parameter("w", *SHAPE)
    a = w * 2.0
    net.output(one=a.sum(0), two=(a * a).exp().sum(1))
    net.b.set_update("w", (a - net.input("x", *SHAPE)).value)
    net.run()


def test_a_variable_s_gradient_is_a_buffer_of_its_own() -> None:
    b = Builder("g")
    x = Sym(b, b.add_input("x", TensorType(f64, SHAPE)))
    w = Sym(b, b.add_variable("w", TensorType(f64, SHAPE), "parameter"))
    b.set_update("w", (w - x * x).value)
    assert len(fuse(b.graph()).works) == 1
