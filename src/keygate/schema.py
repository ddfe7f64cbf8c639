"""Every table of KeyGate on one `metadata`: what migrations compare with, and what tests create.

An area's tables are found by their file name (`tables.py`), so a new one can't be forgotten.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import sqlalchemy as sa

from keygate.kit.database import metadata


def whole_schema() -> sa.MetaData:
    """Imports every `tables.py` of the package, in a stable order, and returns the metadata they registered on."""
    root = Path(__file__).parent
    for path in sorted(root.rglob("tables.py")):
        importlib.import_module(".".join(("keygate", *path.relative_to(root).with_suffix("").parts)))
    return metadata
