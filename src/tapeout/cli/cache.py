"""`tapeout cache`."""

from __future__ import annotations

import click

from tapeout.cli import options as o


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
    from tapeout.codegen.cache import clear, show
    from tapeout.support import env
    from tapeout.support.units import bytes_text

    speaker = Speaker(json=as_json)
    stores = clear() if action == "clear" else show()
    files = sum(u.files for u in stores.values())
    size = sum(u.bytes for u in stores.values())
    folder = env.cache_dir()
    speaker.line(
        "cleared" if action == "clear" else "cache",
        f"{folder}: {files:,} files, {bytes_text(size)}",
    )
    for name, usage in stores.items():
        speaker.line("", f"{name}: {usage.files:,} files, {bytes_text(usage.bytes)}")
    speaker.result(
        {
            "folder": str(folder),
            "cleared": action == "clear",
            "files": files,
            "bytes": size,
            "stores": {n: {"files": u.files, "bytes": u.bytes} for n, u in stores.items()},
        }
    )
