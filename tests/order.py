"""The order in which files are begun: the longest first, so that at the end of a run no process is left with one alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pytest

LONG: Final[tuple[str, ...]] = ()
"""Files that take more than ten seconds by themselves, the longest first."""


def in_order(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The tests of those files, then the others as they are found."""
    place = {path: number for number, path in enumerate(LONG)}
    return sorted(items, key=lambda item: place.get(item.nodeid.partition("::")[0], len(LONG)))
