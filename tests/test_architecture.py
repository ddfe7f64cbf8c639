"""The part of the import law that import-linter has no contract for: areas reach each other only through their package's door."""

import importlib
import subprocess
import sys

import grimp
import pytest

AREAS = frozenset(
    {
        "vault",
        "identities",
        "policies",
        "virtual_keys",
        "issued_keys",
        "vendor_spend",
        "vendors",
        "ledger",
        "audit",
        "events",
        "gateway",
        "sandbox",
    }
)
DOORS = frozenset({"keygate.vendors.admin"})  # of their own, so that the request path need not load what stands behind them
WIRE = frozenset({"api", "schemas"})  # the wire of one area may build on another's; doors stay free of pydantic


def _reaches_inside(importer: str, imported: str) -> bool:
    where, what = importer.split("."), imported.split(".")
    if imported in DOORS or len(what) < 3 or what[1] not in AREAS or what[1] == where[1]:
        return False
    if where[-1] in WIRE and what[-1] == "schemas":
        return False
    door = importlib.import_module(".".join(what[:2]))
    return not (len(what) == 3 and what[2] in door.__all__)


def test_areas_reach_each_other_through_the_door() -> None:
    graph = grimp.build_graph("keygate", exclude_type_checking_imports=True, cache_dir=None)
    inside = [
        f"{importer} → {imported}"
        for importer in graph.modules
        if importer.count(".") and importer.split(".")[1] in AREAS
        for imported in graph.find_modules_directly_imported_by(importer)
        if imported.startswith("keygate.") and _reaches_inside(importer, imported)
    ]
    assert inside == []


@pytest.mark.parametrize("area", sorted(AREAS - {"sandbox"}))
def test_a_door_opens_without_database_and_web_framework(area: str) -> None:
    """What is imported at run time, not only what the graph says: the gateway may use every door."""
    heavy = "{'sqlalchemy', 'fastapi', 'pydantic'} & set(sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", f"import keygate.{area}, sys; print({heavy})"], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "set()"
