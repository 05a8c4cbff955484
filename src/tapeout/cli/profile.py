"""`tapeout profile`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tapeout.cli import options as o

if TYPE_CHECKING:
    from rich.console import Console

    from tapeout.api.profile import KernelTime, Profile, Total

optional_data = click.option(
    "--data",
    "data_text",
    metavar="D",
    help="Real data, as for train: its first samples make the batch. Default: made-up numbers that the model accepts.",
)
optional_batch_size = click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    metavar="B",
    help="Samples in a batch, where the model leaves it open; default: 32.",
)
subject_options = (
    o.loss, o.labels, o.optimizer, o.lr, o.clip_norm, o.precision, *o.changes, o.dims, optional_data, o.rename, o.transform,
    optional_batch_size, o.threads,
)  # fmt: skip


@click.command(name="profile")
@o.together(o.model, *subject_options)
@click.option("--predict", is_flag=True, help="The model in inference mode, no training step.")
@click.option(
    "--by",
    type=click.Choice(["launch", "kernel", "scope", "role"]),
    default="launch",
    show_default=True,
    help="What a row is: every launch, equal kernels together, a layer, or forward, backward and update.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    metavar="N",
    help="Rows to show; the rest is one row.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.01),
    default=2.0,
    show_default=True,
    metavar="S",
    help="About how long steps are timed.",
)
@click.option("--html", metavar="FILE.html", help="Also write a page with bars and the roofline.")
@o.as_json
def command(
    by: str,
    top: int,
    seconds: float,
    html: str | None,
    as_json: bool,
    **asked: Any,  # noqa: ANN401 (checked by click)
) -> None:
    """Show where the time of a training step goes: every kernel, with the nodes it came from, against what the machine can do.

    The clocks are read inside of the native step, so threads and loops are as in training. The machine's ceilings (multiply-adds
    in registers, bytes from memory) are measured once by kernels of their own and kept.

    \b
    tapeout profile lenet.onnx --batch-size 64
    tapeout profile resnet50.onnx --by scope --html resnet50.html
    tapeout profile gpt2.onnx --predict --json > profile.json
    """  # noqa: D301 (click's mark for a paragraph that is kept as it is)
    from tapeout.api.profile import profile
    from tapeout.cli.outputs import check_not_input, check_writable
    from tapeout.cli.say import Speaker
    from tapeout.cli.subject import Asked, subject

    page = check_writable(html, suffixes=(".html",)) if html else None
    if page is not None:
        check_not_input(page, str(asked["model"]))
    wanted = Asked(**asked)
    found = subject(wanted)
    result = profile(found.runs, found.batch, seconds=seconds)
    speaker = Speaker(json=as_json)
    if found.made_up:
        speaker.line("batch", "made-up numbers; --data uses real ones")
    _show(result, by, top, as_json)
    if page is not None:
        from tapeout.support.files import write_atomic
        from tapeout.view.profile import render

        write_atomic(page, render(result.to_data()).encode())
        speaker.line("wrote", str(page))
    speaker.result(result.to_data())


def _show(found: Profile, by: str, top: int, as_json: bool) -> None:
    from rich.console import Console

    console = Console(stderr=as_json, highlight=False, width=None if _is_terminal(as_json) else 160)
    for line in _head(found):
        console.print(line, markup=False)
    if by == "launch":
        _launches(console, found, top)
    else:
        _totals(console, found, by, top)
    if by != "role":
        _totals(console, found, "role", 10)


def _is_terminal(as_json: bool) -> bool:
    from tapeout.cli.say import is_live

    return is_live(err=as_json)


def _head(found: Profile) -> list[str]:
    from tapeout.support.units import bytes_text, count_text, seconds_text

    c = found.ceiling
    kernels = found.native - found.between
    return [
        f"{found.name}: {seconds_text(found.call)} a step as called from Python (median of {found.steps}), {found.threads} threads",
        f"  with clocks {seconds_text(found.native)}: kernels {seconds_text(kernels)} ({100 * kernels / found.native:.1f} %), "
        f"between them {seconds_text(found.between)}",
        f"  {count_text(found.flops)}FLOP, {bytes_text(found.bytes)} read and written: "
        f"{count_text(found.flops / found.call)}FLOP/s, {bytes_text(found.bytes / found.call)}/s",
        f"  ceilings: {count_text(c.flops)}FLOP/s (f32), {bytes_text(c.memory)}/s memory, {bytes_text(c.cache)}/s cache; {c.machine}",
    ]


def _launches(console: Console, found: Profile, top: int) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("time", "share", "runs", "FLOP/s", "bytes/s", "of roof", "role"):
        table.add_column(name, justify="left" if name == "role" else "right", no_wrap=True)
    table.add_column("what", no_wrap=True)
    table.add_column("nodes", no_wrap=True)
    room = max(console.width - _NUMBERS, 40)
    what = min(40, room // 2)
    for k in found.kernels[:top]:
        texts = (_cut(k.label, what), _cut(_nodes(k), room - what))
        table.add_row(*_cells(k), *map(Text, texts))
    rest = found.kernels[top:]
    if rest:
        from tapeout.support.units import seconds_text

        table.add_row(
            seconds_text(sum(k.seconds for k in rest)),
            f"{100 * sum(k.share for k in rest):.1f} %",
            *("",) * 5,
            f"{len(rest)} more",
        )
    console.print(table)


_NUMBERS = 76
"""Columns of the terminal that the figures of a launch take."""


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _cells(k: KernelTime) -> tuple[str, ...]:
    from tapeout.support.units import bytes_text, count_text, seconds_text

    rate = k.seconds or float("inf")
    return (
        seconds_text(k.seconds),
        f"{100 * k.share:.1f} %",
        f"{k.runs:g}",
        count_text(k.flops / rate),
        bytes_text(k.bytes / rate),
        f"{100 * k.of_roof:.0f} % {k.bound[:3]}",
        k.role,
    )


def _nodes(k: KernelTime) -> str:
    """Return the nodes of a kernel, each once, with their operators."""
    named = dict.fromkeys(f"{s.name} ({s.operator})" if s.operator else s.name for s in k.sources)
    return ", ".join(named)


def _totals(console: Console, found: Profile, by: str, top: int) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("time", "share", "launches", "FLOP/s", "bytes/s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(
        {"scope": "layer", "kernel": "kernel", "role": "role"}[by],
        overflow="ellipsis",
        no_wrap=True,
    )
    totals = found.totals(by)
    labels = {k.kernel: k.label for k in found.kernels}
    for t in totals[:top]:
        shown = f"{t.name}  {labels[t.name]}" if by == "kernel" else t.name
        table.add_row(*_total_cells(t), Text(shown))
    console.print()
    console.print(table)


def _total_cells(t: Total) -> tuple[str, ...]:
    from tapeout.support.units import bytes_text, count_text, seconds_text

    rate = t.seconds or float("inf")
    return (
        seconds_text(t.seconds),
        f"{100 * t.share:.1f} %",
        str(t.launches),
        count_text(t.flops / rate),
        bytes_text(t.bytes / rate),
    )
