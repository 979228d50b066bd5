"""Connections that hold a worker for nothing are parted with, without holding it up for that."""

from __future__ import annotations

import asyncio

import pytest

from accessguard.api import connections
from accessguard.api.connections import Connections, Patience, Stage


class Silent:
    """One that came long ago, and sends no more; it notes the turn of the loop in which it was parted with."""

    def __init__(self, stage: Stage, turns: list[int], number: list[int]) -> None:
        self._stage, self._turns, self._number = stage, turns, number
        self.gone = False

    def stage(self) -> tuple[Stage, float]:
        """Since ever."""
        return (Stage.BUSY if self.gone else self._stage), -1e9

    def peer(self) -> str | None:
        """The same for all."""
        return "192.0.2.1"

    def late(self) -> None:
        """It is told so."""
        self.cut()

    def cut(self) -> None:
        """It has gone."""
        self.gone = True
        self._turns.append(self._number[0])

    def forget(self) -> None:
        """Nothing is known of it."""


@pytest.mark.parametrize("stage", [Stage.HOLDING, Stage.UNREAD])
async def test_a_crowd_that_is_late_at_once_goes_one_by_one(monkeypatch: pytest.MonkeyPatch, stage: Stage):
    """Whoever else is served has a turn between any two of them."""
    monkeypatch.setattr(connections, "ROUND_S", 0.01)
    loop, turns, number = asyncio.get_running_loop(), list[int](), [0]
    those = Connections(Patience(connections=100, request_s=1, write_s=1), loop)
    crowd = [Silent(stage, turns, number) for _ in range(40)]
    for each in crowd:
        assert those.enter(each)

    while not all(each.gone for each in crowd):
        number[0] += 1
        await asyncio.sleep(0)
    for each in crowd:
        those.leave(each)

    assert len(set(turns)) == len(turns) == 40
