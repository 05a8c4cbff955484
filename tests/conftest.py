"""What every test may rely on: its own cache folder, the checked build, seeds, golden files."""

import difflib
import importlib.util
import os
import shutil
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"

# Compiling inside a property makes single examples slow, so no example has a deadline. `dev` and
# `ci` draw the same examples every time: a red run means a change is at fault, not luck. New
# examples are looked for on purpose, with --hypothesis-profile=nightly.
for name, examples, derandomize in [("dev", 50, True), ("ci", 60, True), ("nightly", 5000, False)]:
    hypothesis.settings.register_profile(
        name,
        max_examples=examples,
        derandomize=derandomize,
        deadline=None,
        print_blob=True,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
hypothesis.settings.load_profile("dev")


# --- options ---------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options of this suite."""
    group = parser.getgroup("tapeout")
    group.addoption("--update-golden", action="store_true", help="write golden files anew")
    group.addoption("--require-torch", action="store_true", help="fail where torch is absent")


# --- environment -----------------------------------------------------------------------------------

_session_cache = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Start from a known environment, before any module of ours is imported.

    No switch of the developer's shell reaches a test, the caches are empty at the start of the
    session, and kernels are built with their bounds tests. Parallel workers inherit all of it from
    the process that starts them, so they share one cache as processes of a user would.
    """
    if hasattr(config, "workerinput"):
        return
    if config.getoption("--require-torch") and not _found("torch"):
        raise pytest.UsageError("--require-torch: torch is not installed")
    for name in [name for name in os.environ if name.startswith("TAPEOUT_")]:
        del os.environ[name]
    cache = Path(tempfile.mkdtemp(prefix="tapeout-tests-"))
    config.stash[_session_cache] = cache
    os.environ["TAPEOUT_CACHE_DIR"] = str(cache)
    os.environ["TAPEOUT_CHECKED"] = "1"
    # Workers of this suite share the cores already.
    os.environ["TAPEOUT_JOBS"] = "1"


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the caches of this session."""
    cache = config.stash.get(_session_cache, None)
    if cache is not None:
        shutil.rmtree(cache, ignore_errors=True)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compile cache of this test's own, empty."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("TAPEOUT_CACHE_DIR", str(cache))
    return cache


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build as users do, without bounds tests: for speed, and for code that is compared as text."""
    monkeypatch.setenv("TAPEOUT_CHECKED", "0")


# --- which tests run -------------------------------------------------------------------------------


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this machine or this run cannot do."""
    parallel = hasattr(config, "workerinput")
    reasons = {
        "torch": None if _found("torch") else "needs torch (make torch)",
        "ptx": None if _ptxas_found() else "needs ptxas (pip install '.[ptx]')",
        "timing": "measures time: run without -n" if parallel else None,
    }
    for item in items:
        for mark, reason in reasons.items():
            if reason is not None and mark in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))


def _found(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _ptxas_found() -> bool:
    if shutil.which("ptxas"):
        return True
    spec = importlib.util.find_spec("nvidia")
    roots = list(spec.submodule_search_locations or []) if spec else []
    return any(next(Path(root).rglob("bin/ptxas"), None) for root in roots)


# --- fixtures --------------------------------------------------------------------------------------


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that depend on the test's name only."""
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


@dataclass(frozen=True)
class Golden:
    """Compares text with a file under tests/golden."""

    update: bool

    def __call__(self, text: str, name: str) -> None:
        """Fail unless tests/golden/NAME holds exactly this text; write it under --update-golden."""
        path = GOLDEN / name
        text = text.rstrip("\n") + "\n"
        if self.update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        if not path.exists():
            pytest.fail(f"no golden file {name}; look at the text and write it: --update-golden")
        expected = path.read_text(encoding="utf-8")
        if text == expected:
            return
        diff = difflib.unified_diff(
            expected.splitlines(), text.splitlines(), f"golden/{name}", "this run", lineterm=""
        )
        pytest.fail("\n".join(diff) + "\n(if intended: --update-golden)", pytrace=False)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """`golden(text, "cse/two_adds.tape")`: the text is what it was, or the change is intended."""
    return Golden(update=request.config.getoption("--update-golden"))
