"""Two forms of the request path: the compiled one is used where it was built from exactly these sources, and never otherwise."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import keygate
from keygate.compiled import DIRECTORY, HOME, MANIFEST, SUFFIX, Finder, digest, usable

ROOT = HOME.parent.parent
MODULES = [line for line in (ROOT / "native" / "modules.txt").read_text().split() if not line.startswith("#")]


def form(**environment: str) -> str:
    """How another process says that it runs."""
    program = "import keygate, keygate.gateway.exchange as it; print(keygate.FORM, it.__file__.endswith('.py'), sep='|')"
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environment})
    return found.stdout.strip()


@pytest.fixture
def built(tmp_path: Path) -> tuple[Path, Path]:
    """A package of one module, and the folder of its compiled form."""
    home, directory = tmp_path / "keygate", tmp_path / "keygate" / "_compiled"
    directory.mkdir(parents=True)
    (home / "one.py").write_text("VALUE = 1\n")
    (directory / f"keygate.one{SUFFIX}").write_bytes(b"")
    manifest = {"suffix": SUFFIX, "sources": {"one.py": digest(b"VALUE = 1\n")}, "extensions": ["keygate.one"]}
    (directory / MANIFEST).write_text(json.dumps(manifest))
    return home, directory


def test_what_fits_its_sources_is_used(built: tuple[Path, Path]) -> None:
    home, directory = built
    files, why = usable(directory, home)
    assert (files, why) == ({"keygate.one": directory / f"keygate.one{SUFFIX}"}, "compiled")
    spec = Finder(files).find_spec("keygate.one")
    assert spec is not None
    assert spec.origin == str(files["keygate.one"])
    assert Finder(files).find_spec("keygate.two") is None


def test_one_changed_source_leaves_all_of_it_unused(built: tuple[Path, Path]) -> None:
    home, directory = built
    (home / "one.py").write_text("VALUE = 2\n")
    assert usable(directory, home) == ({}, "stale: one.py has changed since it was built")
    (home / "one.py").unlink()
    assert usable(directory, home) == ({}, "stale: one.py is gone")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"suffix": ".cpython-27-sparc.so"}, "built for another interpreter"),
        ({"extensions": ["keygate.one", "keygate.two"]}, "incomplete: keygate.two is missing"),
        ({"sources": 5}, "built, but its manifest can't be read"),
    ],
)
def test_what_does_not_fit_this_interpreter_or_is_not_whole_is_unused(
    built: tuple[Path, Path], change: dict[str, object], why: str
) -> None:
    home, directory = built
    manifest = json.loads((directory / MANIFEST).read_text())
    (directory / MANIFEST).write_text(json.dumps({**manifest, **change}))
    assert usable(directory, home) == ({}, why)
    (directory / MANIFEST).unlink()
    assert usable(directory, home) == ({}, "not built")


def test_compiled_form_can_be_switched_off() -> None:
    assert form(KEYGATE_COMPILED="no") == "switched off by KEYGATE_COMPILED|True"


def test_compiled_form_runs_where_it_can_be_built() -> None:
    """`make compiled` builds it; edited sources run interpreted until then, which this test doesn't let pass for the form that ships."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None or not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        pytest.skip("nothing to build with on this machine: KeyGate runs interpreted, and was tested so")
    assert form(KEYGATE_COMPILED="") == "compiled|False"


def test_every_listed_module_runs_in_the_form_that_is_told() -> None:
    expected = SUFFIX if keygate.FORM == "compiled" else ".py"
    assert sorted(set(MODULES)) == MODULES
    assert [name for name in MODULES if not str(importlib.import_module(name).__file__).endswith(expected)] == []
    if keygate.FORM == "compiled":
        manifest = json.loads((DIRECTORY / MANIFEST).read_text())
        assert set(manifest["sources"]) >= {"/".join(name.split(".")[1:]) + ".py" for name in MODULES}


def test_what_is_laid_down_at_compilation_is_watched_too() -> None:
    """Named tuples of modules that are not compiled are read by position in those that are."""
    program = "import build; print(*build.built_from(), sep='\\n')"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT / "native").stdout.split()
    assert {"ledger/ports.py", "ledger/journal/records.py", "vendors/routes.py", "ledger/accounts.py"} <= set(found)
    assert "policies/model.py" not in found  # data classes, looked up by name
    assert "api/app.py" not in found
