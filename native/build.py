"""Compiles the request path with mypyc. Run with the interpreter of `.build/` by `make setup`, from a checkout.

    build.py PYTHON          PYTHON: the interpreter that has KeyGate and will run it; what is built goes into that KeyGate's package

What is there already and was built from these very files by this very program stays.

Ends well where there is nothing to build with, after one line that says so: KeyGate runs interpreted then. A build that fails
although it could have succeeded is shown whole, and ends with 1.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
os.environ["KEYGATE_COMPILED"] = "no"  # the build itself runs none of it
sys.path.insert(0, str(SOURCE))

from keygate.compiled import DIRECTORY, MANIFEST, SUFFIX, digest, usable  # noqa: E402  (the path is set above)

GROUP = "keygate_native"
MODULES = Path(__file__).with_name("modules.txt")


def modules() -> list[str]:
    lines = (line.partition("#")[0].strip() for line in MODULES.read_text().splitlines())
    return [line for line in lines if line]


def path_of(module: str) -> str:
    """Below the package."""
    path = "/".join(module.split(".")[1:])
    return f"{path}.py" if (SOURCE / "keygate" / f"{path}.py").exists() else f"{path}/__init__.py"


def built_from() -> list[str]:
    """The files that stand in what is built: the modules themselves, and whatever else of ours they know that is laid down when they are
    compiled. mypyc reads named tuples by position and puts constants in place, of modules too that it does not compile."""
    known: set[str] = set()
    found = {path_of(module) for module in modules()}
    waiting = modules()
    while waiting:
        module = waiting.pop()
        if module in known or not (SOURCE / "keygate" / path_of(module)).exists():
            continue
        known.add(module)
        tree = ast.parse((SOURCE / "keygate" / path_of(module)).read_bytes())
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        if names & {"NamedTuple", "Final"}:
            found.add(path_of(module))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "keygate":
                waiting += [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
    return sorted(found)


def tools() -> str:
    """What decides how is compiled, as one digest."""
    files = (Path(__file__), MODULES, ROOT / "native" / "mypy.ini", ROOT / "requirements" / "build.txt")
    return digest(b"".join(file.read_bytes() for file in files))


def missing() -> str | None:
    """What this machine lacks to build extensions."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return "no C compiler"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return "no headers of Python"
    try:
        import mypyc.build  # noqa: F401, PLC0415  (the question is whether it is there)
        import setuptools  # noqa: F401, PLC0415  (as above)
    except ImportError as error:
        return f"no {error.name}"
    return None


def compile_into(directory: Path, python: str) -> list[str]:
    """Names of the extension modules, as they lie in `directory` then."""
    from mypyc.build import mypycify  # noqa: PLC0415  (only after `missing` has looked for it)
    from setuptools import Distribution  # noqa: PLC0415  (as above)

    os.chdir(SOURCE)  # names in tracebacks are relative to it
    options = ["--config-file", str(ROOT / "native" / "mypy.ini"), "--python-executable", python]
    paths = [f"keygate/{path_of(module)}" for module in modules()]
    work = directory / "work"
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):  # remarks about code that is right and only slow
            extensions = mypycify([*options, *paths], group_name=GROUP, target_dir=str(work / "c"), opt_level="1", debug_level="0")
    except SystemExit:
        print(said.getvalue())
        raise
    command = Distribution({"name": GROUP, "ext_modules": extensions}).get_command_obj("build_ext")
    command.build_lib, command.build_temp, command.parallel = str(work / "lib"), str(work / "o"), os.cpu_count()
    command.ensure_finalized()
    command.run()
    for extension in extensions:
        shutil.move(command.get_ext_fullpath(extension.name), directory / f"{extension.name}{SUFFIX}")
    shutil.rmtree(work)
    return [extension.name for extension in extensions]


def home_of(python: str) -> Path:
    """The package that this interpreter imports."""
    command = [python, "-P", "-c", "import keygate; print(keygate.__path__[0])"]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True, cwd="/").stdout.strip())


def is_fresh(home: Path) -> bool:
    files, _ = usable(home / DIRECTORY.name, home)
    return bool(files) and json.loads((home / DIRECTORY.name / MANIFEST).read_bytes()).get("tools") == tools()


def build(python: str) -> int:
    lack = missing()
    if lack is not None:
        print(f"{lack}: KeyGate runs interpreted, slower per request; everything else is the same (docs/guides/installing.md)")
        return 0
    home = home_of(python)
    if is_fresh(home):
        return 0
    began = time.monotonic()
    print("compiling the request path (one to three minutes, once) …", flush=True)
    sources = {path: digest((SOURCE / "keygate" / path).read_bytes()) for path in built_from()}
    with tempfile.TemporaryDirectory(prefix="keygate-", dir=ROOT / "native") as name:
        built = Path(name)
        extensions = compile_into(built, python)
        manifest = {"suffix": SUFFIX, "tools": tools(), "sources": sources, "extensions": extensions}
        (built / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        target = home / DIRECTORY.name
        if target.exists():
            shutil.rmtree(target)
        target.mkdir()
        for file in sorted(built.iterdir(), key=lambda each: each.name == MANIFEST):  # the manifest last: without it nothing is used
            shutil.move(file, target / file.name)
    files, form = usable(home / DIRECTORY.name, home)
    if not files:
        print(f"the compiled request path can't be used: {form}")
        return 1
    environment = {name: value for name, value in os.environ.items() if name != "KEYGATE_COMPILED"}
    subprocess.run([python, "-c", f"import {', '.join(modules())}"], check=True, cwd="/", env=environment)
    print(f"compiled in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(build(str(Path(sys.argv[1]).absolute())))
