"""The entry point: which commands there are, and what each kind of failure looks like from outside."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

import click

from tapeout.cli.interrupt import Interrupted
from tapeout.support.errors import TapeoutError

if TYPE_CHECKING:
    from collections.abc import Sequence

OK, NO, BAD_INPUT, INTERNAL, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes: done; the answer is no; bad usage or bad input; a fault of tapeout; stopped by the user."""

_COMMANDS = {
    "demo": "demo",
    "check": "check",
    "train": "train",
    "eval": "evaluate",
    "predict": "predict",
    "gradcheck": "gradcheck",
    "view": "view",
    "profile": "profile",
    "tune": "tune",
    "bench": "bench",
    "export-step": "export_step",
    "opt": "opt",
    "bisect": "bisect",
    "cache": "cache",
}
"""Command to the file that holds it, in the order of a user's way."""


class _Commands(click.Group):
    """Loads a command when it is asked for, so that a start costs only what it uses."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"tapeout.cli.{_COMMANDS[cmd_name]}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from tapeout.support.errors import nearest

        if args and not args[0].startswith("-") and args[0] not in _COMMANDS:
            raise click.UsageError(
                f"no command is called {args[0]!r}; {nearest(args[0], _COMMANDS)}", ctx
            )
        return super().resolve_command(ctx, args)


def _version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if not asked or ctx.resilient_parsing:
        return
    import tapeout

    click.echo(f"tapeout {tapeout.__version__}")
    ctx.exit()


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Each command explains itself: tapeout train --help",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version.",
)
def root() -> None:
    """Compile the training of a neural network: ONNX in, one native training step out.

    \b
    tapeout demo                              train a LeNet on real digits, end to end
    tapeout check model.onnx                  can it be trained? what will it need?
    tapeout train model.onnx --data data.npz -o trained.onnx
    tapeout view  model.onnx -o model.html    look at it, and at what was derived from it
    """  # noqa: D301 (click's mark for a paragraph that is kept as it is)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Args:
        argv: Arguments without the program's name; None: those of the process.
    """
    try:
        found = root.main(
            args=None if argv is None else list(argv), prog_name="tapeout", standalone_mode=False
        )
    except click.ClickException as e:
        _usage(e)
        return BAD_INPUT
    except Interrupted as e:
        _say(f"tapeout: interrupted; {e}")
        return INTERRUPTED
    except (KeyboardInterrupt, click.Abort):
        _say("tapeout: interrupted; nothing was written")
        return INTERRUPTED
    except TapeoutError as e:
        _say(f"tapeout: error: {e}")
        return BAD_INPUT
    except BrokenPipeError:
        # The reader of a pipe has seen enough; the interpreter must not complain about it at its end either.
        _silence()
        return OK
    except OSError as e:
        if e.filename is None:
            return _internal(e)
        _say(f"tapeout: error: {e.filename}: {e.strerror}")
        return BAD_INPUT
    except MemoryError:
        _say("tapeout: error: there is not enough memory\n  hint: choose a smaller --batch-size")
        return BAD_INPUT
    except Exception as e:
        return _internal(e)
    return found if isinstance(found, int) else OK


def _usage(e: click.ClickException) -> None:
    ctx = getattr(e, "ctx", None)
    _say(f"tapeout: error: {e.format_message()}")
    if ctx is not None:
        _say(f"  usage: {' '.join(ctx.get_usage().split()).removeprefix('Usage: ')}")
        _say(f"  help:  {ctx.command_path} --help")


def _internal(error: BaseException) -> int:
    """Write the traceback to a file and say where it is and what to do with it."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile(
        "w", prefix="tapeout-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.write(f"command: {sys.argv}\n\n")
        file.write("".join(traceback.format_exception(error)))
    _say(
        f"tapeout: internal error: {type(error).__name__}: {error}\n"
        f"  this is a fault of tapeout, not of your input; please report it with the file {file.name}"
    )
    return INTERNAL


def _say(text: str) -> None:
    click.echo(text, err=True)


def _silence() -> None:
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
