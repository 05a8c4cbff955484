"""`tapeout cache`."""

from __future__ import annotations

from pathlib import Path

import click

from tapeout.cli import options as o

STORES = ("kernels", "programs")
"""Folders of ours; nothing else in the cache folder is touched, whatever TAPEOUT_CACHE_DIR points at."""


@click.command(name="cache")
@click.argument("action", type=click.Choice(["show", "clear"]), default="show")
@o.as_json
def command(action: str, as_json: bool) -> None:
    """Show or clear what was compiled and kept for the next run. TAPEOUT_CACHE_DIR says where it is.

    \b
    tapeout cache
    tapeout cache clear
    """  # noqa: D301 (click's mark for a paragraph that is kept as it is)
    from tapeout.cli.say import Speaker
    from tapeout.support import env

    speaker = Speaker(json=as_json)
    folder = env.cache_dir()
    parts = {name: _files(folder / name) for name in STORES if (folder / name).is_dir()}
    if action == "clear":
        _clear(parts)
    _tell(speaker, folder, parts, cleared=action == "clear")


def _files(folder: Path) -> list[tuple[Path, int]]:
    """Return the files below a folder of the cache with their sizes; links are not followed."""
    found = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.is_symlink()]
    return [(p, p.stat().st_size) for p in found]


def _clear(parts: dict[str, list[tuple[Path, int]]]) -> None:
    for files in parts.values():
        for path, _ in files:
            # Another process may have dropped it meanwhile.
            path.unlink(missing_ok=True)


def _tell(
    speaker: object, folder: Path, parts: dict[str, list[tuple[Path, int]]], *, cleared: bool
) -> None:
    from tapeout.cli.say import Speaker
    from tapeout.support.units import bytes_text

    assert isinstance(speaker, Speaker)
    total = sum(size for files in parts.values() for _, size in files)
    count = sum(len(files) for files in parts.values())
    speaker.line(
        "cleared" if cleared else "cache", f"{folder}: {count:,} files, {bytes_text(total)}"
    )
    for name, files in parts.items():
        speaker.line(
            "", f"{name}: {len(files):,} files, {bytes_text(sum(size for _, size in files))}"
        )
    speaker.result(
        {
            "folder": str(folder),
            "cleared": cleared,
            "files": count,
            "bytes": total,
            "parts": {
                n: {"files": len(f), "bytes": sum(s for _, s in f)} for n, f in parts.items()
            },
        }
    )
