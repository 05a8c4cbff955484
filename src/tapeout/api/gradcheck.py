"""Native gradients against finite differences of the native loss, in f64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.api.batches import array_of, fit_array
from tapeout.api.trainer import Trainer
from tapeout.driver.step import LOSS
from tapeout.ir.graph import Graph
from tapeout.passes.precision import widen
from tapeout.support.errors import OptionError
from tapeout.training.losses import Formula, as_loss

if TYPE_CHECKING:
    from tapeout.ir.op import Array
    from tapeout.ir.type import TensorType
    from tapeout.ops.sym import Sym
    from tapeout.training.losses import Loss

LIMIT = 1e-6
"""Largest error of an entry."""
KINKS = 0.02
"""Largest share of kinks among all that is checked."""
CROWDED = 0.1
"""Largest share of kinks in one parameter (one kink is always allowed)."""
F32_LIMIT = 1e-4
"""Largest distance of the f32 gradient from the f64 one, relative to the tensor's largest entry."""
FLOOR = 1e-9
"""Gradients below this are compared absolutely."""
NOISE, SHARE = 1e-9, 1e-3
"""A tensor below `NOISE` times the largest gradient of all parameters is zero by the mathematics and holds rounding noise (a bias in front
of batch normalisation, the bias of keys in attention): differences must find none either, relative to `SHARE` of that largest; in f32 the
noise is compared with that largest itself."""
STEPS = (1e-4, 1e-5, 1e-6)
"""Step sizes relative to max(1, |x|), each taken together with its double; the next while those two disagree."""
SAMPLES = 4
"""What every unbound dimension is, where no data are given."""


@dataclass
class ParameterReport:
    """What was found for one parameter.

    Attributes:
        name: The parameter.
        checked: Entries and directions compared.
        worst: Largest error.
        worst_at: Index of it, empty for a direction.
        kinks: Indices where two step sizes disagree, however small.
        f32: Distance of the f32 gradient, relative to the largest entry; None when not asked for.
        floor: Gradients below it are compared absolutely.
        zero: Whether the whole gradient is zero.
        reason: Why a zero gradient is right, when it was listed.
    """

    name: str
    checked: int = 0
    worst: float = 0.0
    worst_at: tuple[int, ...] = ()
    kinks: list[tuple[int, ...]] = field(default_factory=list)
    f32: float | None = None
    floor: float = FLOOR
    zero: bool = False
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Whether this parameter is right."""
        if self.zero and not self.reason:
            return False
        few = len(self.kinks) <= max(1, int(CROWDED * self.checked))
        return few and self.worst <= LIMIT and (self.f32 is None or self.f32 <= F32_LIMIT)


@dataclass
class GradcheckReport:
    """What was found for all parameters; true when all are right."""

    parameters: list[ParameterReport]

    def __bool__(self) -> bool:
        return self.kinks <= KINKS * self.checked and all(p.passed for p in self.parameters)

    @property
    def checked(self) -> int:
        """Entries and directions compared."""
        return sum(p.checked for p in self.parameters)

    @property
    def kinks(self) -> int:
        """How many of them lie at a kink."""
        return sum(len(p.kinks) for p in self.parameters)

    @property
    def worst(self) -> float:
        """Largest error of all."""
        return max((p.worst for p in self.parameters), default=0.0)

    def __str__(self) -> str:
        lines = [
            f"{'parameter':32} {'checked':>8} {'worst error':>12} {'kinks':>6} {'f32 error':>10}"
        ]
        for p in self.parameters:
            f32 = "" if p.f32 is None else f"{p.f32:10.1e}"
            verdict = (
                "" if p.passed else "  FAILED" + (": the gradient is all zero" if p.zero else "")
            )
            lines.append(
                f"{p.name:32} {p.checked:8} {p.worst:12.1e} {len(p.kinks):6} {f32:>10}{verdict}"
            )
        if self.kinks > KINKS * self.checked:
            lines.append(f"FAILED: {self.kinks} of {self.checked} lie at a kink, {KINKS:.0%} may")
        return "\n".join(lines)


def gradcheck(
    model: Graph | str | Path,
    loss: Loss | str | Callable[..., Any] | None = None,
    data: Mapping[str, Any] | None = None,
    *,
    entries: int = 32,
    largest: int = 8,
    directions: int = 4,
    all_entries: bool = False,
    f32: bool = True,
    seed: int = 0,
    zero_gradients: Mapping[str, str] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> GradcheckReport:
    """Compare the native gradient of every trainable parameter with fourth-order finite differences in f64.

    The error of an entry is `|g - fd| / max(|g|, |fd|, 1e-3 * max|g| of the tensor, floor)`. Entries where two step sizes
    disagree lie at a kink; they are listed, not compared. Steps are made smaller while the two sizes disagree, for the smaller
    ones meet fewer kinks, and no smaller than that, for rounding grows.

    Args:
        model: A graph or the path of an ONNX file.
        loss: As in `Trainer`; None: the sum of all float outputs, each times fixed random weights.
        data: One batch by input name; None: random data of 4 samples from the seed.
        entries: Random entries per parameter.
        largest: The entries with the largest gradients, added to those.
        directions: Random directions per parameter.
        all_entries: Every entry instead.
        f32: Also compare the f32 gradient with the f64 one.
        seed: Seed of data, entries and directions.
        zero_gradients: Parameters whose gradient is zero, with the reason.
        progress: Called with (parameter, its number, how many there are).

    Raises:
        OptionError: Nothing is trainable, or the loss does not fit the model.
    """
    if not isinstance(model, Graph):
        from tapeout.api.load import load_onnx

        model = load_onnx(model)
    chosen = Formula(lambda known: projection(model, known)) if loss is None else as_loss(loss)
    wide = Trainer(model.then(widen), loss=chosen, optimizer=None)
    batch = _batch(wide, data, seed)
    _, exact = wide.gradients(batch)
    if not exact:
        raise OptionError(
            "no parameter is trainable", hint="unfreeze some: model.unfreeze('head.*')"
        )
    narrow = None
    if f32:
        small = Trainer(model, loss=chosen, optimizer=None)
        _, narrow = small.gradients(_narrowed(batch))
    value = _NativeLoss(wide, batch)
    overall = max((_largest(g) for g in exact.values()), default=0.0)
    reports = []
    for i, (name, g) in enumerate(exact.items()):
        if progress:
            progress(name, i, len(exact))
        rng = np.random.Generator(np.random.Philox(key=[seed, i]))
        nothing = _largest(g) <= NOISE * overall
        report = ParameterReport(
            name,
            floor=max(SHARE * overall, FLOOR) if nothing else FLOOR,
            zero=not np.any(g),
            reason=(zero_gradients or {}).get(name, ""),
        )
        _check_entries(value, g, _chosen(g, rng, entries, largest, all_entries), report)
        _check_directions(value, g, rng, directions, report)
        if narrow is not None:
            size = overall if nothing else _largest(g)
            report.f32 = _largest(narrow[name] - g) / max(size, FLOOR)
        reports.append(report)
    return GradcheckReport(reports)


def _largest(g: Array) -> float:
    return float(np.max(np.abs(g), initial=0.0))


class _NativeLoss:
    """The native loss of one batch; what stands in memory as parameters decides it."""

    def __init__(self, trainer: Trainer, batch: Mapping[str, Array]) -> None:
        self._entry = trainer._entry_for("loss", batch)  # noqa: SLF001 (the same room)
        types = self._entry.program.input_types
        self._inputs = {n: fit_array(n, batch[n], t) for n, t in types.items()}
        self._session = trainer.session

    def __call__(self) -> float:
        """Run the forward pass."""
        return float(self._entry.run(self._inputs)[LOSS])

    def memory(self, name: str) -> Array:
        """Return the memory of a parameter: what is written there counts from the next call on."""
        return self._session.memory(name)


def projection(model: Graph, known: Mapping[str, Sym]) -> Sym:
    """Return the sum of all float outputs, each element times a fixed random weight.

    Raises:
        OptionError: There is no float output.
    """
    total: Sym | None = None
    for i, (name, value) in enumerate(model.outputs):
        y = known[name]
        if not value.type.dtype.is_float:
            continue
        weights = np.random.Generator(np.random.Philox(key=[77, i])).standard_normal(y.shape)
        part = (y * y.constant(weights.astype(y.dtype.numpy))).sum()
        total = part if total is None else total + part
    if total is None:
        raise OptionError("the model has no float output to take a gradient of")
    return total


def _batch(trainer: Trainer, data: Mapping[str, Any] | None, seed: int) -> dict[str, Array]:
    """Return a batch whose floats are exact in f32, so that both precisions see the same numbers."""
    if data is not None:
        return {n: _widened(array_of(a)) for n, a in data.items()}
    dims = dict.fromkeys(trainer.model.dims, SAMPLES)
    entry = trainer._entry("gradients", dims, {})  # noqa: SLF001 (the same room)
    rng = np.random.Generator(np.random.Philox(key=[seed, 1]))
    return {n: _random(t, rng) for n, t in entry.program.input_types.items()}


def _random(type_: TensorType, rng: np.random.Generator) -> Array:
    if type_.dtype.is_float:
        return rng.standard_normal(type_.shape).astype(np.float32).astype(type_.dtype.numpy)
    return np.asarray(rng.integers(0, 2, type_.shape), type_.dtype.numpy)


def _widened(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype == np.float32 else array


def _narrowed(batch: Mapping[str, Array]) -> dict[str, Array]:
    return {n: a.astype(np.float32) if a.dtype == np.float64 else a for n, a in batch.items()}


def _chosen(
    g: Array, rng: np.random.Generator, entries: int, largest: int, all_entries: bool
) -> list[int]:
    if all_entries or g.size <= entries + largest:
        return list(range(g.size))
    drawn = rng.choice(g.size, entries, replace=False)
    top = np.argsort(-np.abs(g), axis=None, kind="stable")[:largest]
    return sorted({*map(int, drawn), *map(int, top)})


def _check_entries(
    loss: _NativeLoss, g: Array, chosen: Sequence[int], report: ParameterReport
) -> None:
    memory, slopes = loss.memory(report.name).reshape(-1), g.reshape(-1)
    top = _largest(g)
    for i in chosen:
        x = memory[i]

        def at(t: float, i: int = i, x: float = x) -> float:
            memory[i] = x + t
            return loss()

        place = tuple(int(j) for j in np.unravel_index(i, g.shape))
        _compare(at, max(1.0, abs(float(x))), float(slopes[i]), top, place, report)
        memory[i] = x


def _check_directions(
    loss: _NativeLoss, g: Array, rng: np.random.Generator, directions: int, report: ParameterReport
) -> None:
    memory = loss.memory(report.name)
    start = memory.copy()
    for _ in range(directions):
        d: Array = np.asarray(rng.standard_normal(g.shape))
        d /= max(float(np.linalg.norm(d)), 1e-300)

        def at(t: float, d: Array = d) -> float:
            memory[...] = start + t * d
            return loss()

        _compare(at, 1.0, float(np.sum(g * d)), float(np.linalg.norm(g)), (), report)
    memory[...] = start


def _compare(
    at: Callable[[float], float],
    scale: float,
    g: float,
    top: float,
    index: tuple[int, ...],
    report: ParameterReport,
) -> None:
    report.checked += 1
    for step in STEPS:
        near, far = _slopes(at, step * scale)
        below = max(abs(g), abs(near), abs(far), 1e-3 * top, report.floor)
        error = min(abs(g - near), abs(g - far)) / below
        if error <= LIMIT or abs(near - far) / below <= LIMIT:
            if error > report.worst:
                report.worst, report.worst_at = error, index
            return
    report.kinks.append(index)


def _slopes(at: Callable[[float], float], h: float) -> tuple[float, float]:
    """Return the fourth-order central differences with steps `h` and `2h`, which share two points."""
    d1, d2, d4 = (at(t) - at(-t) for t in (h, 2.0 * h, 4.0 * h))
    return (8.0 * d1 - d2) / (12.0 * h), (8.0 * d2 - d4) / (24.0 * h)
