"""The order in which files are begun: the longest first, so that at the end of a run no process is left with one alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pytest

LONG: Final = (
    "tests/members/test_privacy.py",  # looks through all that the files before it have left
    "tests/journeys/test_workers.py",
    "tests/browser/test_pages.py",
    "tests/test_backup.py",
    "tests/journeys/test_outage.py",
    "tests/browser/test_journeys.py",
    "tests/journeys/test_failover.py",
    "tests/api/test_contract.py",
    "tests/chaos/test_chaos.py",
    "tests/watching/test_prometheus.py",
    "tests/journeys/test_outage_blocks.py",
    "tests/journeys/test_simulate.py",
    "tests/sessions/test_sentinel.py",
    "tests/client/test_guides.py",
    "tests/journeys/test_ailing_stores.py",
    "tests/journeys/test_login_races.py",
    "tests/journeys/test_outage_tokens.py",
    "tests/journeys/test_kill.py",
    "tests/migrations/test_beside.py",
    "tests/benchmarks/test_quick.py",
    "tests/test_command_line.py",
    "tests/benchmarks/test_recognition.py",
    "tests/client_faults/test_client_faults.py",
    "tests/client/test_own.py",
    "tests/client/test_examples.py",
    "tests/demo/test_day.py",
    "tests/sessions/test_cluster.py",
)
"""Files that take about ten seconds or more by themselves, the longest first, what waits beside what works."""


def in_order(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The tests of those files, then the others as they are found."""
    place = {path: number for number, path in enumerate(LONG)}
    return sorted(items, key=lambda item: place.get(item.nodeid.partition("::")[0], len(LONG)))
