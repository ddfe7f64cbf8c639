"""The compiled form of the request path: used where it was built from exactly these sources, and never otherwise.

`native/build.py` writes extension modules into `_compiled/` beside this file, and with them a manifest: what each was made from (the
sources' digests) and for which interpreter. `install` runs when the package is imported, before any of them is. If a single digest
differs, all of it stays unused: half a compiled request path would be neither form. Interpreted, everything works the same, only slower.

KEYGATE_COMPILED=no chooses the interpreted form. It is read here and not by `config.py`, because it decides how that is reached.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

HOME = Path(__file__).parent
DIRECTORY = HOME / "_compiled"
MANIFEST = "manifest.json"
SUFFIX = EXTENSION_SUFFIXES[0]  # names the interpreter and its version, so that another one finds nothing

_SWITCHED_OFF = frozenset({"0", "no", "off", "false"})


def digest(source: bytes) -> str:
    return blake2b(source, digest_size=16).hexdigest()


class Finder:
    """Finds the modules of a manifest among the extensions, before the import system looks for their sources."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files = files

    def find_spec(self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None) -> ModuleSpec | None:
        file = self.files.get(name)
        if file is None:
            return None
        return spec_from_file_location(name, file, loader=ExtensionFileLoader(name, str(file)))


def usable(directory: Path = DIRECTORY, home: Path = HOME) -> tuple[dict[str, Path], str]:
    """The extensions by module name, or none of them and why."""
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
        sources, extensions, suffix = dict(manifest["sources"]), list(manifest["extensions"]), str(manifest["suffix"])
    except FileNotFoundError:
        return {}, "not built"
    except (OSError, ValueError, KeyError, TypeError):
        return {}, "built, but its manifest can't be read"
    if suffix != SUFFIX:
        return {}, "built for another interpreter"
    for name, expected in sources.items():
        try:
            if digest((home / name).read_bytes()) != expected:
                return {}, f"stale: {name} has changed since it was built"
        except OSError:
            return {}, f"stale: {name} is gone"
    files = {name: directory / f"{name}{suffix}" for name in extensions}
    missing = [name for name, file in files.items() if not file.exists()]
    return ({}, f"incomplete: {missing[0]} is missing") if missing else (files, "compiled")


def install() -> str:
    """Makes the compiled modules the ones that are imported. Returns how the request path runs: `compiled`, or why it is not."""
    if os.environ.get("KEYGATE_COMPILED", "").strip().lower() in _SWITCHED_OFF:
        return "switched off by KEYGATE_COMPILED"
    files, form = usable()
    if files:
        sys.meta_path.insert(0, Finder(files))
    elif form != "not built":
        sys.stderr.write(f"The request path runs interpreted, and slower: its compiled form is {form}. `make compiled` builds it again.\n")
    return form
