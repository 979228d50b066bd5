"""The files that are begun first are there."""

from __future__ import annotations

from pathlib import Path

from tests.order import LONG


def test_every_file_that_is_begun_first_is_there():
    """One that was renamed would be begun late, and nobody would know."""
    root = Path(__file__).parents[1]

    assert [each for each in LONG if not (root / each).is_file()] == []
    assert len(set(LONG)) == len(LONG)
