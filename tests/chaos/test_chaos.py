"""The short form of `make chaos`: a handful of faults on real processes, and every promise but those on speed."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.ledger import PROMISED_S, Kind, Ledger
from tests.chaos.load import Day
from tests.chaos.play import play
from tests.chaos.relay import Line, Relay

SEED = 6
SHORT = ("postgres killed", "valkey stopped", "valkey flushed", "worker killed")


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_nothing_acknowledged_is_lost_and_nothing_blocked_gets_in():
    """A minute of faults under load: the ledger agrees with SQL and API, limits hold, and nothing leaks."""
    outcome = await play(SEED, lasting_s=0, only=SHORT, strict=False)

    assert [(each.promise, each.what, each.entry) for each in outcome.breaches] == []
    assert {each.fault for each in outcome.scenes} == set(SHORT)
    assert set(outcome.acknowledged) == set(Kind)


def test_every_fault_of_the_short_form_is_one_of_the_long():
    """A renamed fault would otherwise not be played, and nobody would know."""
    assert set(SHORT) <= {each.name for each in FAULTS}


def test_the_ledger_finds_who_is_let_in_too_late_after_a_block():
    """An allow asked for within 5 s of the acknowledgement is forgiven, a later one is not; a lifted block says nothing."""
    ledger = Ledger()
    asked = {"device_id": "d", "member_id": "f1", "access": "blocked"}
    entry = ledger.acknowledge(Kind.DEVICE, 0.0, 1, asked, {"access": "blocked"})
    ledger.block(entry, ("s",))
    allow = {"decision": "allow", "degraded": True, "member_id": "f1"}

    ledger.judge("s", entry.acknowledged + PROMISED_S - 0.1, allow)
    ledger.judge("s", entry.acknowledged + PROMISED_S + 0.1, allow | {"decision": "deny"})
    early = len(ledger.breaches)
    ledger.judge("s", entry.acknowledged + PROMISED_S + 0.1, allow)
    ledger.lift("d")
    ledger.judge("s", entry.acknowledged + PROMISED_S + 0.1, allow)

    assert early == 0
    assert [each.entry for each in ledger.breaches] == [entry]


def test_the_ledger_forgives_an_undecided_allow_only_where_no_store_could_be_asked():
    """While both stores are out and shortly after, and at no other time: then a host has somebody to ask."""
    ledger = Ledger()
    entry = ledger.acknowledge(Kind.DEVICE, -60.0, 1, {"device_id": "d", "member_id": "f1"}, {})
    ledger.block(entry, ("s",))
    undecided, asked = {"decision": "allow", "degraded": True, "member_id": None}, entry.acknowledged + PROMISED_S + 0.1

    with ledger.under("both out"):
        ledger.judge("s", asked + 60, undecided)
    forgiven = len(ledger.breaches)
    ledger.judge("s", asked + 60, undecided)
    with ledger.under("postgres killed"):
        ledger.judge("s", asked + 60, undecided)

    assert (forgiven, len(ledger.breaches)) == (0, 2)


async def test_nobody_calls_between_two_pauses_that_follow_each_other():
    """Who was woken by the end of the first waits for the second: what is counted then would not be in the ledger yet."""
    day, calls = Day(), 0

    async def call() -> None:
        nonlocal calls
        calls += 1

    async with day.paused():
        calling = [asyncio.create_task(day.act(call)) for _ in range(3)]
        await asyncio.sleep(0)
    async with day.paused():
        for _ in range(3):
            await asyncio.sleep(0)
        during = calls
    await asyncio.gather(*calling)

    assert (during, calls) == (0, 3)


async def test_a_relay_carries_hangs_and_drops(tmp_path):
    """What was sent while it hung arrives afterwards; a dead line closes connections and takes no new ones."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                writer.write(line)
        writer.close()

    server = await asyncio.start_unix_server(echo, tmp_path / "target")
    relay = Relay(tmp_path / "relay", tmp_path / "target")
    await relay.start()
    reader, writer = await asyncio.open_unix_connection(tmp_path / "relay")
    writer.write(b"one\n")
    one = await reader.readline()
    await relay.set(Line.SILENT)
    writer.write(b"two\n")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await reader.readline()
    await relay.set(Line.OPEN)
    two = await reader.readline()
    await relay.set(Line.DEAD)
    rest = await reader.read()
    with pytest.raises(FileNotFoundError):
        await asyncio.open_unix_connection(tmp_path / "relay")
    await relay.stop()
    server.close()
    writer.close()

    assert (one, two, rest) == (b"one\n", b"two\n", b"")
