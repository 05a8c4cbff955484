"""`custom_gradient`: a function of Syms with a gradient rule of its own."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from tapeout.frontend.dsl import Recorder, user_line
from tapeout.ops.composite.custom import FORMULA, RULE, Custom
from tapeout.ops.sym import Sym
from tapeout.support.errors import OptionError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tapeout.ir.graph import Graph

    Formula = Callable[..., Sym | Sequence[Sym]]
    Rule = Callable[..., Sym | Sequence[Sym | None] | None]


class CustomGradient:
    """A function whose gradient rule is given by `backward`; call it as the function."""

    def __init__(self, formula: Formula) -> None:
        """Wrap a function; its rule is missing yet."""
        self._formula = formula
        self._rule: Rule | None = None
        functools.update_wrapper(self, formula)

    def backward(self, rule: Rule) -> Rule:
        """Declare the gradient rule (a decorator).

        Args:
            rule: Called once per use, as `rule(cotangents, operands, results, **options)`: tuples of Syms. Cotangents are those of
                the float results; one that is zero is a tensor of zeros. Returns the cotangent of each operand, None for zero (a
                single one may stand without a sequence).
        """
        self._rule = rule
        return rule

    def __call__(self, *operands: Sym, **options: Any) -> Any:  # noqa: ANN401 (a Sym or several, as the function)
        """Append the function to the graph of its operands.

        Args:
            operands: Syms of one builder.
            options: Anything else that function and rule take.

        Returns:
            What the function returns: a Sym, or a tuple.

        Raises:
            OptionError: The rule is missing, or an operand is no Sym.
            ShapeError: The rule gives cotangents that do not fit the operands.
        """
        label = self._formula.__name__
        if self._rule is None:
            raise OptionError(
                f"{label!r} has no gradient rule",
                where=str(user_line()),
                hint=f"decorate one with @{label}.backward",
            )
        if not operands or not all(isinstance(o, Sym) for o in operands):
            raise OptionError(f"{label!r} takes Syms, then options by name", where=str(user_line()))
        formula, single = _recorded(self._formula, operands, options)
        results = tuple(Sym(operands[0].builder, v) for _, v in formula.outputs)
        rule = _rule(self._rule, label, operands, results, options)
        made = operands[0].emit_all(Custom(label, formula, rule), *operands)
        return made[0] if single else made


def custom_gradient(function: Formula) -> CustomGradient:
    """Give a function of Syms a gradient rule of its own.

    >>> @custom_gradient
    ... def straight_through(x):
    ...     return (x > 0).cast(x.dtype)
    >>> @straight_through.backward
    ... def rule(cotangents, operands, results):
    ...     return cotangents[0]

    The rule may be differentiated again: its own formula then counts. Neither function nor rule may read Syms that are not passed
    to it, nor declare parameters.

    Args:
        function: Of Syms (and options by name) to a Sym or several; called once per use.

    Returns:
        Something to call as the function, once its `backward` was declared.
    """
    return CustomGradient(function)


def _recorded(
    function: Formula, operands: Sequence[Sym], options: dict[str, Any]
) -> tuple[Graph, bool]:
    """Return the formula as a region, and whether it has a single result that stands alone."""
    inner = Recorder(FORMULA, 0)
    given = [Sym(inner, inner.add_input(f"x{i}", o.type)) for i, o in enumerate(operands)]
    made = function(*given, **options)
    single = isinstance(made, Sym)
    for i, y in enumerate([made] if isinstance(made, Sym) else made):
        _check_inside(inner, y)
        inner.set_output(f"y{i}", y.value)
    return inner.graph(), single


def _rule(
    rule: Rule,
    label: str,
    operands: Sequence[Sym],
    results: Sequence[Sym],
    options: dict[str, Any],
) -> Graph:
    """Return the gradient rule as a region."""
    inner = Recorder(RULE, 0)

    def inputs(letter: str, like: Sequence[Sym]) -> tuple[Sym, ...]:
        return tuple(
            Sym(inner, inner.add_input(f"{letter}{i}", o.type)) for i, o in enumerate(like)
        )

    cotangents = inputs("dy", [y for y in results if y.dtype.is_float])
    made = rule(cotangents, inputs("x", operands), inputs("y", results), **options)
    found = [made] if made is None or isinstance(made, Sym) else list(made)
    if len(found) != len(operands):
        raise ShapeError(
            f"the rule of {label!r} gives {len(found)} cotangents for {len(operands)} operands",
            where=str(user_line()),
        )
    for i, (dx, x) in enumerate(zip(found, operands, strict=True)):
        if dx is None:
            continue
        _check_inside(inner, dx)
        if dx.type != x.type or not x.dtype.is_float:
            raise ShapeError(
                f"the rule of {label!r} gives {dx.type.text} as cotangent of operand {i}, which is {x.type.text}",
                where=str(user_line()),
            )
        inner.set_output(f"d{i}", dx.value)
    return inner.graph()


def _check_inside(inner: Recorder, y: Sym) -> None:
    if y.builder is not inner or inner.variables:
        raise ShapeError(
            "a function with a gradient rule reads only what it is given, and declares nothing",
            where=str(user_line()),
            hint="pass parameters and other values as operands",
        )
