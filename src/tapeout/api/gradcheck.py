"""Native gradients against finite differences of the native loss, in f64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.api.trainer import Trainer
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
"""Largest share of entries at a kink."""
F32_LIMIT = 1e-4
"""Largest distance of the f32 gradient from the f64 one, relative to the tensor's largest entry."""
FLOOR = 1e-9
"""Gradients below this are compared absolutely: tensors whose gradient is zero by the mathematics hold rounding noise of this size."""
STEPS = ((2e-4, 1e-4), (2e-5, 1e-5), (2e-6, 1e-6))
"""Pairs of step sizes, relative to max(1, |x|). A smaller pair is tried only where a larger one disagrees with itself: large steps have
less rounding noise, small ones meet fewer kinks."""


@dataclass
class ParameterReport:
    """What was found for one parameter.

    Attributes:
        name: The parameter.
        checked: Entries and directions compared.
        worst: Largest error.
        worst_at: Index of it, empty for a direction.
        kinks: Indices where the two step sizes disagree.
        f32: Distance of the f32 gradient, relative to the largest entry; None when not asked for.
        zero: Whether the whole gradient is zero.
        reason: Why a zero gradient is right, when it was listed.
    """

    name: str
    checked: int = 0
    worst: float = 0.0
    worst_at: tuple[int, ...] = ()
    kinks: list[tuple[int, ...]] = field(default_factory=list)
    f32: float | None = None
    zero: bool = False
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Whether this parameter is right."""
        if self.zero and not self.reason:
            return False
        few = len(self.kinks) <= max(1, int(KINKS * self.checked))
        return few and self.worst <= LIMIT and (self.f32 is None or self.f32 <= F32_LIMIT)


@dataclass
class GradcheckReport:
    """What was found for all parameters; true when all are right."""

    parameters: list[ParameterReport]

    def __bool__(self) -> bool:
        return all(p.passed for p in self.parameters)

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

    The error of an entry is `|g - fd| / max(|g|, |fd|, 1e-3 * max|g| of the tensor, FLOOR)`. Entries where two step sizes
    disagree lie at a kink; they are listed, not compared.

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
    """
    if not isinstance(model, Graph):
        from tapeout.api.load import load_onnx

        model = load_onnx(model)
    chosen = Formula(lambda known: projection(model, known)) if loss is None else as_loss(loss)
    wide = Trainer(model.then(widen), loss=chosen, optimizer=None)
    batch = _batch(wide, data, seed)
    _, exact = wide.gradients(batch)
    narrow = None
    if f32:
        small = Trainer(model, loss=chosen, optimizer=None)
        _, narrow = small.gradients(_narrowed(batch, small))
    reports = []
    for i, (name, g) in enumerate(exact.items()):
        if progress:
            progress(name, i, len(exact))
        rng = np.random.Generator(np.random.Philox(key=[seed, i]))
        report = ParameterReport(
            name, zero=not np.any(g), reason=(zero_gradients or {}).get(name, "")
        )
        _check(wide, batch, name, g, _chosen(g, rng, entries, largest, all_entries), report)
        _check_directions(wide, batch, name, g, rng, directions, report)
        if narrow is not None:
            top = max(float(np.max(np.abs(g), initial=0.0)), FLOOR)
            report.f32 = float(np.max(np.abs(narrow[name] - g), initial=0.0)) / top
        reports.append(report)
    return GradcheckReport(reports)


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
    types = {
        v.name: v.type for v in trainer.model.bind(dict.fromkeys(trainer.model.dims, 4)).inputs
    }
    entry = trainer._entry("gradients", dict.fromkeys(trainer.model.dims, 4), {})
    types = dict(entry.program.input_types) | {
        n: t for n, t in types.items() if n in entry.program.input_types
    }
    if data is not None:
        return {
            n: np.asarray(data[n], t.dtype.numpy) if t.dtype.is_float else np.asarray(data[n])
            for n, t in types.items()
        }
    rng = np.random.Generator(np.random.Philox(key=[seed, 1]))
    return {n: _random(t, rng) for n, t in types.items()}


def _random(type_: TensorType, rng: np.random.Generator) -> Array:
    if type_.dtype.is_float:
        return np.asarray(rng.standard_normal(type_.shape), type_.dtype.numpy)
    return np.asarray(rng.integers(0, 2, type_.shape), type_.dtype.numpy)


def _narrowed(batch: Mapping[str, Array], trainer: Trainer) -> dict[str, Array]:
    return {n: a.astype(np.float32) if a.dtype == np.float64 else a for n, a in batch.items()}


def _chosen(
    g: Array, rng: np.random.Generator, entries: int, largest: int, all_entries: bool
) -> list[int]:
    if all_entries or g.size <= entries + largest:
        return list(range(g.size))
    drawn = rng.choice(g.size, entries, replace=False)
    top = np.argsort(-np.abs(g), axis=None, kind="stable")[:largest]
    return sorted({*map(int, drawn), *map(int, top)})


def _check(
    trainer: Trainer,
    batch: Mapping[str, Array],
    name: str,
    g: Array,
    chosen: Sequence[int],
    report: ParameterReport,
) -> None:
    start = trainer.parameters[name]
    top = float(np.max(np.abs(g), initial=0.0))
    work = start.copy()
    flat, flat_g = work.reshape(-1), g.reshape(-1)
    for i in chosen:
        x = float(flat[i])

        def at(t: float, i: int = i, x: float = x) -> float:
            flat[i] = x + t
            return _loss(trainer, batch, name, work)

        scale = max(1.0, abs(x))
        _compare(
            at,
            scale,
            float(flat_g[i]),
            top,
            tuple(int(j) for j in np.unravel_index(i, g.shape)),
            report,
        )
        flat[i] = x
    trainer.session.write(name, start)


def _check_directions(
    trainer: Trainer,
    batch: Mapping[str, Array],
    name: str,
    g: Array,
    rng: np.random.Generator,
    directions: int,
    report: ParameterReport,
) -> None:
    start = trainer.parameters[name]
    for _ in range(directions):
        d = rng.standard_normal(g.shape)
        d /= max(float(np.linalg.norm(d)), 1e-300)
        slope = float(np.sum(g * d))
        _compare(
            lambda t, d=d: _loss(trainer, batch, name, start + t * d),  # type: ignore[misc]
            1.0,
            slope,
            float(np.linalg.norm(g)),
            (),
            report,
        )
    trainer.session.write(name, start)


def _compare(
    at: Callable[[float], float],
    scale: float,
    g: float,
    top: float,
    index: tuple[int, ...],
    report: ParameterReport,
) -> None:
    report.checked += 1
    for pair in STEPS:
        slopes = [_slope(at, h * scale) for h in pair]
        below = max(abs(g), max(map(abs, slopes)), 1e-3 * top, FLOOR)
        error = min(abs(g - s) / below for s in slopes)
        if error <= LIMIT or abs(slopes[0] - slopes[1]) / below <= LIMIT:
            if error > report.worst:
                report.worst, report.worst_at = error, index
            return
    report.kinks.append(index)


def _slope(at: Callable[[float], float], h: float) -> float:
    """Return the fourth-order central difference."""
    return (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h)


def _loss(trainer: Trainer, batch: Mapping[str, Array], name: str, value: Array) -> float:
    trainer.session.write(name, value)
    return trainer.loss_of(batch)
