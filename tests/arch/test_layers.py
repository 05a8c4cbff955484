"""Imports only point down, and each foreign package has its door."""

import configparser
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.arch.sources import PACKAGE, ROOT, imports, sources


def _rooms() -> set[str]:
    return {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}


def _exists(module: str) -> bool:
    head, *rest = module.split(".")
    return head != "tapeout" or not rest or rest[0] in _rooms() | {"*", "**"}


def _as_ini(options: dict[str, object]) -> dict[str, str]:
    return {
        key: "\n" + "\n".join(map(str, value)) if isinstance(value, list) else str(value)
        for key, value in options.items()
    }


def _contracts(path: Path) -> None:
    """Write the contracts of pyproject.toml, less the rooms that nobody has built yet."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    contracts = table.pop("contracts")
    ini = configparser.ConfigParser()
    ini["importlinter"] = _as_ini(table)
    for contract in contracts:
        if contract["type"] == "layers":
            contract["layers"] = [
                " | ".join(room if room in _rooms() else f"({room})" for room in layer.split(" | "))
                for layer in contract["layers"]
            ]
        for key in ("source_modules", "forbidden_modules"):
            if key in contract:
                contract[key] = [module for module in contract[key] if _exists(module)]
        if contract.get("source_modules") == [] or contract.get("forbidden_modules") == []:
            continue
        ini[f"importlinter:contract:{contract.pop('id')}"] = _as_ini(contract)
    with path.open("w") as file:
        ini.write(file)


def test_imports_point_down(tmp_path: Path) -> None:
    tool = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    if tool is None:
        pytest.skip("needs import-linter (make layers)")
    config = tmp_path / "contracts.ini"
    _contracts(config)
    done = subprocess.run(
        [tool, "--no-cache", "--config", str(config)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_rooms_never_import_the_facade() -> None:
    """`tapeout/__init__.py` hands out names of all rooms; a room that used it would see upwards."""
    facade = {"tapeout", *(f"tapeout.{s.path.stem}" for s in sources() if not s.room)}
    faults = [
        f"{source.at(node)}: imports {name}"
        for source in sources()
        if source.room and source.room != "cli"
        for node, name in imports(source.tree)
        if name in facade or (name.rpartition(".")[0] in facade and not _is_room(name))
    ]
    assert not faults, "\n".join(faults)


def _is_room(name: str) -> bool:
    return name.split(".")[1] in _rooms()


def test_rooms_have_no_relative_imports() -> None:
    faults = [
        f"{source.at(node)}: {name}"
        for source in sources()
        for node, name in imports(source.tree)
        if name.startswith(".")
    ]
    assert not faults, "\n".join(faults)
