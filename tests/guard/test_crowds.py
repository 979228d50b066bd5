"""Which first logins are one burst of one browser."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest

from accessguard.guard.crowds import Crowds

KEY = ("tenant", "ana", "browser", "address")


def answered(crowds: Crowds, device_id: UUID) -> None:
    """One first login, from its arrival to its answer."""
    with crowds.joined(KEY) as crowd:
        assert crowd is not None
        crowd.device_id = crowd.device_id or device_id


async def test_a_login_after_an_answer_is_no_longer_one_with_it():
    """A private window comes after the answer to the other one, and is a device of its own."""
    crowds, first = Crowds(), uuid4()
    answered(crowds, first)

    with crowds.joined(KEY) as crowd:
        same = crowds.same(crowd, first)

    assert same is False


async def test_a_straggler_of_a_burst_is_one_with_it():
    """A worker that is busy reads the last of two hundred requests after it has answered the first hundred."""
    crowds, first = Crowds(), uuid4()
    with crowds.joined(KEY):
        answered(crowds, first)

    with crowds.joined(KEY) as crowd:
        same = crowds.same(crowd, first)

    assert same is True


async def test_a_burst_is_over_a_while_after_its_last_answer(monkeypatch: pytest.MonkeyPatch):
    """Then nothing of it is left but that its device was answered."""
    monkeypatch.setattr("accessguard.guard.crowds.LINGER_S", 0.01)
    crowds, first = Crowds(), uuid4()
    with crowds.joined(KEY):
        answered(crowds, first)
    async with asyncio.timeout(5):
        while crowds._crowds:
            await asyncio.sleep(0.01)

    with crowds.joined(KEY) as crowd:
        same = crowds.same(crowd, first)

    assert same is False
