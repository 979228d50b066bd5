"""Changes that are pushed, and changes whose message was lost."""

from __future__ import annotations

import asyncio
import time

import pytest

from accessguard.database import Database
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard import barred as barred_room
from accessguard.guard import changes as room
from accessguard.guard.barred import Barred
from accessguard.guard.changes import Changes
from accessguard.guard.memory import Memory
from accessguard.policies.book import PolicyBook
from accessguard.policies.store import PolicyStore
from accessguard.sessions.bars import BarStore, of_device, of_end
from accessguard.sessions.live import Change, Live
from accessguard.sessions.store import SessionStore
from tests.build import hold
from tests.service import Service


async def until(condition, *, within_s: float = 5.0) -> None:
    """Wait until `condition()` is true; fail when it is not in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be in time"
        await asyncio.sleep(0.005)


class Worker:
    """What another worker holds, without its HTTP."""

    def __init__(self, db: Database, live: Live) -> None:
        self.db, self.live = db, live
        self.sessions = SessionStore(db)
        self.memory = Memory()
        self.book = PolicyBook(PolicyStore(db))
        self.changes = Changes(
            live=live, memory=self.memory, book=self.book, sessions=self.sessions, policies=PolicyStore(db)
        )

    async def learn(self, tenant: str, session_id: str) -> None:
        """Hold the member of a session, as a check would."""
        since = self.memory.moment()
        snapshot = await self.sessions.snapshot(tenant, session_id, timeout_s=5)
        assert snapshot is not None
        hold(self.memory, snapshot, session_id, since=since)


@pytest.fixture
async def worker(service, database_url, redis_url):
    """A second worker on the run's stores that hears nothing unless told to listen."""
    made = Worker(await Database.connect(database_url, size=2), Live.connect(redis_url))
    yield made
    await made.live.close()
    await made.db.close()


async def test_a_member_whose_message_was_lost_is_found_by_its_generation(worker, tenant):
    """One look after the change drops what is held; a look without a change drops nothing."""
    login = await tenant.login()
    session_id = login["session"]["id"]
    await worker.changes.look()
    await worker.learn(tenant.name, session_id)
    await worker.changes.look()
    untouched = worker.memory.known(tenant.name, session_id)

    await tenant.device("ana", login["device"]["id"], access="blocked")
    await worker.changes.look()

    assert untouched is not None
    assert worker.memory.known(tenant.name, session_id) is None


async def test_a_policy_whose_message_was_lost_is_found_by_its_generation(worker, tenant):
    """The same for a tenant's rules."""
    await tenant.login()
    await worker.changes.look()
    held = await worker.book.policy(tenant.name)

    await tenant.rule("session_limit", "deny_new", max=1)
    still = worker.book.held(tenant.name)
    await worker.changes.look()

    assert still is held
    assert worker.book.held(tenant.name) is None


async def test_what_was_learned_after_a_change_survives_the_looks_after_it(worker, tenant):
    """Each look goes back over the last ones; it must not cost a query for each."""
    login = await tenant.login()
    await worker.changes.look()
    await tenant.device("ana", login["device"]["id"], name="laptop")
    await worker.learn(tenant.name, login["session"]["id"])

    for _ in range(5):
        await worker.changes.look()

    assert worker.memory.known(tenant.name, login["session"]["id"]) is not None


async def test_a_change_that_is_committed_late_is_found(worker, tenant):
    """Its number was drawn before others that were committed first; a look goes back behind them."""
    login, other = await tenant.login(), await tenant.login("ben")
    session_id = login["session"]["id"]
    await worker.changes.look()
    await worker.learn(tenant.name, session_id)
    async with worker.db.transaction() as slow:
        await slow.row(
            "UPDATE member SET generation = nextval('generation') WHERE tenant = $1 AND id = 'ana'", tenant.name
        )
        await tenant.device("ben", other["device"]["id"], name="laptop")
        await worker.changes.look()
        before = worker.memory.known(tenant.name, session_id)

    await worker.changes.look()

    assert before is not None
    assert worker.memory.known(tenant.name, session_id) is None


async def test_a_worker_that_has_just_started_finds_lost_changes_too(worker, tenant, monkeypatch):
    """Its first look is the baseline, so that nothing that comes after it is taken for known."""
    monkeypatch.setattr(room, "POLL_S", 0.05)
    login = await tenant.login()
    polling = asyncio.create_task(worker.changes.poll())
    await until(lambda: worker.changes._marks)
    await worker.learn(tenant.name, login["session"]["id"])

    await tenant.device("ana", login["device"]["id"], access="blocked")

    await until(lambda: worker.memory.known(tenant.name, login["session"]["id"]) is None)
    polling.cancel()


async def test_without_the_channel_memory_is_not_trusted_and_all_is_forgotten_when_it_is_back(worker, tenant):
    """What was missed meanwhile is not known."""
    login = await tenant.login()
    await worker.learn(tenant.name, login["session"]["id"])
    policy = await worker.book.policy(tenant.name)

    worker.changes.channel(False)
    untrusted = worker.memory.known(tenant.name, login["session"]["id"])
    emergency = worker.memory.stale(tenant.name, login["session"]["id"])
    worker.changes.channel(True)

    assert (untrusted, emergency is not None, policy is not None) == (None, True, True)
    assert worker.memory.trusted is True
    assert worker.memory.stale(tenant.name, login["session"]["id"]) is None
    assert worker.book.held(tenant.name) is None


async def test_a_pushed_change_is_applied_and_a_lost_connection_is_noticed(worker, service: Service, tenant):
    """The worker hears of the change; when its connection is cut, it trusts nothing until it is back."""
    login = await tenant.login()
    states: list[bool] = []

    def channel(up: bool) -> None:
        states.append(up)
        worker.changes.channel(up)

    listening = asyncio.create_task(worker.live.listen(worker.changes.apply, channel))
    await until(lambda: states == [True])
    await worker.learn(tenant.name, login["session"]["id"])

    await tenant.device("ana", login["device"]["id"], access="blocked")
    await until(lambda: worker.memory.known(tenant.name, login["session"]["id"]) is None)
    await worker.live._call("CLIENT", "KILL", "TYPE", "pubsub")
    await until(lambda: states[-2:] == [False, True])
    trusted = worker.memory.trusted
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)

    assert trusted is True
    assert worker.memory.trusted is False
    await until(lambda: service.context.changes._memory.trusted)


async def test_a_change_that_cannot_be_pushed_is_applied_here_all_the_same(worker, tenant):
    """The call does not fail for it; other workers find the generation."""
    login = await tenant.login()
    await worker.learn(tenant.name, login["session"]["id"])
    worker.changes._live = Live.connect("redis://127.0.0.1:1", timeout_s=0.1)

    await worker.changes.announce(Change(tenant=tenant.name, kind="member_changed", member_id="ana"))

    assert worker.memory.known(tenant.name, login["session"]["id"]) is None
    await worker.changes._live.close()


def test_the_overlap_of_looks_is_longer_than_a_transaction_may_take():
    """A number is drawn inside its transaction, which the pool ends after 5 s; looks go back as far."""
    assert room.OVERLAP * room.POLL_S >= 5.0


async def test_more_changes_than_one_page_holds_are_all_found(worker, tenant, monkeypatch):
    """After many logins at once nobody is left out of the look."""
    monkeypatch.setattr(room, "MOST_AT_ONCE", 2)
    members = [f"m{number}" for number in range(5)]
    logins = [await tenant.login(member) for member in members]
    await worker.changes.look()
    for login in logins:
        await worker.learn(tenant.name, login["session"]["id"])

    for member, login in zip(members, logins, strict=True):
        await tenant.device(member, login["device"]["id"], access="blocked")
    await worker.changes.look()

    assert [worker.memory.known(tenant.name, login["session"]["id"]) for login in logins] == [None] * 5


async def test_a_worker_that_stood_still_trusts_nothing_until_it_has_read_the_numbers(worker, tenant):
    """Its message may wait behind the question that it is about."""
    login = await tenant.login()
    session_id = login["session"]["id"]
    await worker.changes.look()
    await worker.learn(tenant.name, session_id)
    worker.changes.awake(worker.changes.awake_at + room.STILL_S)
    before = worker.memory.known(tenant.name, session_id)

    worker.changes.awake(worker.changes.awake_at + room.STILL_S + 0.1)
    asleep = worker.memory.known(tenant.name, session_id)
    await worker.changes.look()

    assert before is not None
    assert asleep is None
    assert worker.memory.stale(tenant.name, session_id) is None
    assert worker.memory.trusted


async def test_the_first_check_after_a_standstill_is_not_answered_from_memory(service, tenant):
    """The fast lane looks at the clock before it looks into its memory; nothing but that tells it here."""
    login = await tenant.login()
    changes, tally = service.context.changes, service.context.checks.tally
    for _ in range(3):
        await tenant.check(login)
    before = tally.loaded
    await tenant.check(login)
    held = tally.loaded - before

    changes.awake_at -= room.STILL_S + 1
    await tenant.check(login)
    anew = tally.loaded - before

    assert (held, anew) == (0, 1)
    await until(lambda: service.context.checks.memory.trusted)


async def test_a_look_that_failed_half_way_is_made_again_from_where_it_began(worker, tenant, monkeypatch):
    """Otherwise three of them in a row would pass over a change whose message was lost."""
    login = await tenant.login()
    session_id = login["session"]["id"]
    await worker.changes.look()
    await worker.learn(tenant.name, session_id)
    await worker.changes.look()
    await tenant.device("ana", login["device"]["id"], access="blocked")

    async def gone(*_: object, **__: object) -> None:
        raise GuardError(ErrorCode.UNAVAILABLE, "gone")

    monkeypatch.setattr(worker.sessions, "changed", gone)
    for _ in range(room.OVERLAP + 1):
        with pytest.raises(GuardError):
            await worker.changes.look()
    monkeypatch.undo()
    await worker.changes.look()

    assert worker.memory.known(tenant.name, session_id) is None


async def test_a_bar_that_cannot_be_left_while_others_are_is_left_at_the_next_look(worker, tenant, monkeypatch):
    """The look that was under way knew nothing of it."""
    bars, store = worker.changes.bars, BarStore(worker.live)
    late = Change(tenant=tenant.name, kind="session_ended", member_id="ana", session_ids=("late",), ended=True)

    async def interrupted(marks):
        async def refused(_):
            raise GuardError(ErrorCode.UNAVAILABLE, "full")

        monkeypatch.setattr(bars._store, "keep", refused)
        bars.hear(late)
        await bars.keep(late)
        monkeypatch.undo()
        await store.keep(marks)

    monkeypatch.setattr(bars._store, "keep", interrupted)
    await bars.leave()
    line = of_end(tenant.name, "late")
    before = await store.marks([line])
    await bars.leave()

    assert before == [None]
    assert await store.marks([line]) == [0]


def test_a_wave_of_ended_sessions_pushes_no_block_out(monkeypatch):
    """Of too many lines those of ended sessions go first, however new they are."""
    monkeypatch.setattr(barred_room, "MOST_BARRED", 100)
    barred, blocks = Barred(), {of_device("t", str(each)): 2 for each in range(50)}
    barred.tell(blocks)

    barred.tell({of_end("t", str(each)): 4 for each in range(200)})

    assert set(blocks) < set(barred.all())
    assert len(barred.all()) <= 100
    assert barred.mark(of_end("t", "199")) == 4


async def test_in_valkey_ended_sessions_lie_below_every_block(worker, tenant):
    """What goes first there is what is lowest; what is read is the mark all the same."""
    ended, blocked = of_end(tenant.name, "s"), of_device(tenant.name, "d")
    store = BarStore(worker.live)

    await store.keep({ended: 2_000_000_000_000, blocked: 2})

    ranks = [await worker.live.ask("ZRANK", "ag:{spool}:bars", line) for line in (ended, blocked)]
    assert ranks[0] < ranks[1]
    assert await store.marks([ended, blocked]) == [2_000_000_000_000, 2]
