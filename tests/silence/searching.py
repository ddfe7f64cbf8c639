"""Everything that is done to the product, and the search of all that came out of it. What may hold a secret, and nothing else may: the
answer that makes a key, a token or a sign-in (that one secret), answers of the gateway that pass the vendor's own answer on, the recorded
content for those who may read it, and `master.key`.
"""

from __future__ import annotations

from tests.silence.calls import (
    be_refused,
    break_database,
    call_everything,
    call_everything_wrongly,
    call_vendors,
    furnish,
    read_recorded,
    suffer_faults,
)
from tests.silence.clouds import issue_cloud_keys
from tests.silence.issuing import issue_keys
from tests.silence.observed import Run
from tests.silence.operator import collect, operate, start_wrongly
from tests.silence.routes import BODIES


def nothing_comes_out(run: Run) -> None:
    for step in (furnish, call_vendors, suffer_faults, be_refused, read_recorded, issue_keys):
        step(run)
    if run.mode.whole:
        issue_cloud_keys(run)
        operate(run)
        call_everything_wrongly(run)
    call_everything(run)
    assert break_database(run) > 50
    collect(run)
    if run.mode.whole:
        start_wrongly(run)
    log = run.keygate.log.read_text(errors="replace")
    run.evidence.add("log", log)
    assert len(run.evidence.seen) > (2_000 if run.mode.whole else 300)
    leaks = run.evidence.leaks()
    assert not leaks, f"{len(leaks)} leaks:\n" + "\n".join(leaks[:40])
    assert run.called >= set(BODIES)
