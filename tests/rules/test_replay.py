"""The replay's running state against the slow truth: everything found out anew from the whole history at each event."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any

import msgspec
import pytest

from accessguard.rules.device import place_since
from accessguard.rules.engine import judge, mild, of_failure
from accessguard.rules.model import (
    Access,
    Activity,
    DeviceFact,
    EnrolmentStatus,
    Facts,
    FailureFact,
    NetworkFact,
    Outcome,
    SessionFact,
    Stage,
)
from accessguard.rules.network import admitted_since
from accessguard.rules.replay import (
    MOST_NETWORKS,
    KnownDevice,
    LoggedIn,
    Over,
    Past,
    Replay,
    Span,
    Standing,
    Terms,
    Used,
)
from tests.build import NOW, device, enrolment, host, number, place, rule, rules

EVERY = rules(
    rule("ip_deny", params={"networks": ["192.0.2.66"]}, number_of_rule=1),
    rule("country_deny", params={"countries": ["FR"]}, number_of_rule=2),
    rule("login_failures", params={"max": 2, "window_s": 600, "lock_s": 300}, number_of_rule=3),
    rule("login_failures", params={"max": 2, "window_s": 900, "lock_s": 60, "per": "device"}, number_of_rule=4),
    rule("session_limit", "deny_new", params={"max": 1, "window_s": 1800}, number_of_rule=5),
    rule("session_limit", "evict_idle", params={"max": 2, "window_s": 1800}, number_of_rule=6),
    rule("session_limit", "evict_oldest", params={"max": 1, "window_s": 3600, "per": "app"}, number_of_rule=7),
    rule("session_limit", "challenge", params={"max": 1, "activities": ["video_watch"]}, number_of_rule=8),
    rule("device_limit", params={"max": 1, "window_days": 1}, number_of_rule=9),
    rule("device_limit", params={"max": 2, "window_days": None}, number_of_rule=10),
    rule("device_churn", params={"max_new": 1, "window_days": 1}, number_of_rule=11),
    rule("network_limit", params={"max": 1, "window_s": 3600}, number_of_rule=12),
    rule("network_limit", params={"max": 1, "window_s": 7200, "unit": "city"}, number_of_rule=13),
    rule("impossible_travel", params={"max_speed_kmh": 900}, number_of_rule=14),
    rule("copied_session", params={"signal": "network"}, number_of_rule=15),
)
PLACES = {
    "203.0.113.9": place(),
    "198.51.100.4": place(country="PT", city="Lisbon", latitude=38.72, longitude=-9.14),
    "192.0.2.66": place(country="FR", city="Paris", latitude=48.86, longitude=2.35),
}
IDLE, LIFETIME = timedelta(days=2), timedelta(days=3)


def terms(*given: Any, since=NOW) -> Terms:
    """These rules, in force since then; sessions end after two idle days, or three."""
    return Terms(rules=given, since=since, idle=IDLE, lifetime=LIFETIME, quiet=timedelta(days=1))


def login(at: float, session: str, browser: int = 1, ip: str = "203.0.113.9", *, succeeded: bool = True) -> LoggedIn:
    """A login `at` seconds after NOW from one of the member's browsers."""
    return LoggedIn(
        at=NOW + timedelta(seconds=at),
        session_id=session,
        succeeded=succeeded,
        device_id=number(browser),
        device_class="desktop",
        app="a" if browser % 2 else "b",
        browser="Chrome",
        os="Windows",
        address=host(ip),
        place=PLACES[ip],
    )


def use(at: float, session: str, activity: Activity = Activity.LESSON_OPEN, ip: str = "203.0.113.9") -> Used:
    """An interaction `at` seconds after NOW."""
    when = NOW + timedelta(seconds=at)
    return Used(at=when, session_id=session, activity=activity, product_id=None, address=host(ip), place=PLACES[ip])


def history(random: Random) -> list[Any]:
    """A short life, hasty or slow: logins, failures, interactions, now and then a logout."""
    at, events, begun = 0.0, [], []
    gaps = random.choice(((31, 60, 110), (31, 60, 110, 300, 1_000, 1_801), (300, 1_801, 7_200, 50_000, 100_000)))
    eager, clumsy = random.choice((0.15, 0.5)), random.choice((0.05, 0.4))
    kinds, places = [Activity.LESSON_OPEN, Activity.VIDEO_WATCH], random.sample(list(PLACES), random.randint(1, 3))
    for step in range(random.randint(2, 24)):
        at += random.choice(gaps)
        ip, browser, chance = random.choice(places), random.randint(1, 4), random.random()
        if not begun or chance < eager:
            begun.append(f"s{step}")
            events.append(login(at, begun[-1], browser, ip))
        elif chance < eager + clumsy:
            events.append(login(at, f"f{step}", browser, ip, succeeded=False))
        elif chance < eager + clumsy + 0.03:
            events.append(Over(at=NOW + timedelta(seconds=at), session_id=random.choice(begun)))
        else:
            events.append(use(at, random.choice(begun[-3:]), random.choice(kinds), ip))
    return events


class Truth:
    """All that happened and what was decided, and every fact found out from that alone."""

    def __init__(self, given):
        self.rules, self.log = given, []

    def allowed(self, kind):
        """Every event of a kind that was let through."""
        return [(e, d) for e, d in self.log if isinstance(e, kind) and d is not None and d.outcome is Outcome.ALLOW]

    def logins(self):
        """Every login that opened a session."""
        return [(e, d) for e, d in self.allowed(LoggedIn) if e.succeeded]

    def session(self, session_id, at):
        """A session that is open at a time; None when it is over, or never began."""
        for began, _ in self.logins():
            if began.session_id != session_id:
                continue
            uses = [e for e, _ in self.allowed(Used) if e.session_id == session_id]
            last = uses[-1].at if uses else began.at
            if self.ended(began) or at >= began.at + LIFETIME or at >= last + IDLE:
                return None
            kind = uses[-1].activity if uses else None
            return SessionFact(
                id=session_id,
                device_id=began.device_id,
                started_at=began.at,
                last_activity=last,
                app=began.app,
                device_class=began.device_class,
                last_kind=kind,
            )
        return None

    def ended(self, began):
        """Whether somebody or something has ended a session."""
        later = [(e, d) for e, d in self.log if e.at > began.at]
        replaced = any((e, d) in self.logins() and e.device_id == began.device_id for e, d in later)
        put_out = any((e, d) in self.logins() and began.session_id in d.evict for e, d in later)
        closed = any(isinstance(e, Over) and e.session_id == began.session_id for e, _ in later)
        copied = any(isinstance(e, Used) and d and d.ends and e.session_id == began.session_id for e, d in later)
        return replaced or put_out or closed or copied

    def device(self, device_id):
        """A device as it stands; None for one that never tried to log in."""
        tries = [(e, d) for e, d in self.log if isinstance(e, LoggedIn) and e.succeeded and e.device_id == device_id]
        if not tries:
            return None
        first = admitted = None
        last = tries[0][0].at
        for e, d in self.log:
            mine = isinstance(e, LoggedIn) and e.succeeded and e.device_id == device_id
            of_mine = isinstance(e, Used) and any(
                b.session_id == e.session_id and b.device_id == device_id for b, _ in self.logins()
            )
            if d is None or d.outcome is not Outcome.ALLOW or not (mine or of_mine):
                continue
            if mine:
                admitted = place_since(admitted, last, self.rules, e.at)
                first = first or e.at
            last = e.at
        return DeviceFact(
            id=device_id,
            access=Access.DEFAULT,
            admitted_at=admitted,
            last_seen=last,
            device_class="desktop",
            first_admitted_at=first,
            browser="Chrome",
            os="Windows",
        )

    def networks(self):
        """Every address of every session."""
        found = {}
        for e, d in self.log:
            if d is None or isinstance(e, Over) or (isinstance(e, LoggedIn) and not e.succeeded):
                continue
            let_in = d.outcome is Outcome.ALLOW
            sid = None if isinstance(e, LoggedIn) and not let_in else e.session_id
            device_id = e.device_id if isinstance(e, LoggedIn) else self.session_device(sid)
            old = found.get((sid, e.address))
            if old is None:
                since = e.at if let_in else None
                found[sid, e.address] = NetworkFact(
                    address=e.address,
                    place=e.place,
                    session_id=sid,
                    device_id=device_id,
                    first_at=e.at,
                    last_at=e.at,
                    admitted_at=since,
                )
            elif let_in:
                since = admitted_since(old.admitted_at, old.last_at, self.rules, e.at)
                found[sid, e.address] = msgspec.structs.replace(old, last_at=e.at, admitted_at=since)
        return tuple(found.values())

    def session_device(self, session_id):
        """The device that a session began on."""
        return next(b.device_id for b, _ in self.logins() if b.session_id == session_id)

    def failures(self):
        """Failed logins that no rule refused."""
        tried = [e for e, d in self.log if isinstance(e, LoggedIn) and e.succeeded]
        return tuple(
            FailureFact(
                at=e.at,
                address=e.address,
                device_id=e.device_id if any(t.device_id == e.device_id and t.at < e.at for t in tried) else None,
            )
            for e, _ in self.allowed(LoggedIn)
            if not e.succeeded
        )

    def succeeded(self, own, at):
        """The last success on the counter of a device; None: of those that were not known before."""
        known, times = set(), []
        for e, d in self.log:
            if isinstance(e, LoggedIn) and e.succeeded:
                if d.outcome is Outcome.ALLOW and (e.device_id == own if own else e.device_id not in known):
                    times.append(e.at)
                known.add(e.device_id)
        return max(times, default=None)

    def decide(self, event):
        """Judge one event."""
        decision = None if isinstance(event, Over) else self._decide(event)
        self.log.append((event, decision))
        return decision

    def _decide(self, event):
        at, failing = event.at, isinstance(event, LoggedIn) and not event.succeeded
        if isinstance(event, Used):
            session = self.session(event.session_id, at)
            if session is None:
                return None
            mine = self.device(session.device_id)
        else:
            mine = self.device(event.device_id)
            session = SessionFact(
                id=event.session_id,
                device_id=event.device_id,
                started_at=at,
                last_activity=at,
                app=event.app,
                device_class="desktop",
            )
        others = [self.session(b.session_id, at) for b, _ in self.logins() if b.session_id != session.id]
        own = None if mine is None else mine.id
        if isinstance(event, LoggedIn) and not failing:
            others = [each for each in others if each is not None and each.device_id != event.device_id]
            if mine is None:
                mine = device(event.device_id.int, admitted=None, new=True, browser="Chrome", os="Windows")
                mine = msgspec.structs.replace(mine, last_seen=at, device_class="desktop")
        ids = {e.device_id for e, _ in self.log if isinstance(e, LoggedIn) and e.succeeded} - {session.device_id}
        facts = Facts(
            now=at,
            stage=Stage.CHECK if isinstance(event, Used) else Stage.LOGIN,
            session=session,
            device=mine,
            address=event.address,
            place=event.place,
            others=tuple(each for each in others if each is not None),
            other_devices=tuple(self.device(each) for each in ids),
            networks=self.networks(),
            failures=self.failures(),
            succeeded_at=None if isinstance(event, Used) else self.succeeded(own, at),
            activity=event.activity if isinstance(event, Used) else None,
            browser="Chrome" if isinstance(event, LoggedIn) and not failing else None,
            os="Windows" if isinstance(event, LoggedIn) and not failing else None,
            enrolments=(),
        )
        return mild(judge(of_failure(self.rules), facts)) if failing else judge(self.rules, facts)


def said(decision):
    """What of a decision somebody would notice."""
    if decision is None:
        return None
    return (
        decision.outcome,
        decision.code,
        decision.evict,
        decision.ends,
        [(s.rule.id, s.effect) for s in decision.fired],
    )


@pytest.mark.parametrize(
    "given", [*((each,) for each in EVERY), EVERY], ids=lambda given: str(len(given)) + given[0].kind
)
def test_the_running_state_says_what_the_whole_history_says(given):
    """A hundred and thirty histories for each rule, and for all of them at once: the same decision at every event."""
    fired = 0
    for seed in range(130):
        replay, truth = Replay(Past(), terms(*given)), Truth(given)

        for event in history(Random(seed)):
            decision = replay.feed(event)
            assert said(decision) == said(truth.decide(event)), (seed, event)
            fired += decision is not None and decision.fired != ()
    assert fired


ONE_SESSION = rule("session_limit", "deny_new", params={"max": 1, "window_s": 1800})
ONE_DEVICE = rule("device_limit", params={"max": 1, "window_days": None})


def codes(past, given, *events, since=NOW):
    """What each event is answered: a code, None for an allow, "-" where nothing is decided."""
    replay = Replay(past, terms(*given, since=since))
    decisions = [replay.feed(event) for event in events]
    return [None if each is not None and each.code is None else each.code if each else "-" for each in decisions]


def test_before_the_rule_comes_into_force_nobody_is_refused():
    """What happened until then stands: two sessions are open, and the newer one is refused at its next interaction."""
    events = (login(0, "a"), login(60, "b", browser=2), use(120, "a"), use(120, "b"))

    answers = codes(Past(), [ONE_SESSION], *events, since=NOW + timedelta(seconds=90))

    assert answers == [None, None, None, "session_limit"]


def test_who_is_refused_takes_no_place():
    """A login that is refused opens no session, and what was recorded of it is not looked at."""
    answers = codes(Past(), [ONE_SESSION], login(0, "a"), login(60, "b", browser=2), use(120, "b"), use(180, "a"))

    assert answers == [None, "session_limit", "-", None]


def test_a_session_that_somebody_ended_takes_no_place():
    """A logout frees the place for the next one."""
    over = Over(at=NOW + timedelta(seconds=30), session_id="a")

    assert codes(Past(), [ONE_SESSION], login(0, "a"), over, login(60, "b", browser=2), use(90, "a")) == [
        None,
        "-",
        None,
        "-",
    ]


def test_staff_and_exempt_members_are_not_stopped():
    """Staff is not looked at; of an exempt member it is only noted, while the exemption lasts."""
    events = (login(0, "a"), login(60, "b", browser=2), login(120, "c", browser=3))
    soon = Span(until=NOW + timedelta(seconds=100))

    assert codes(Past(staff=True), [ONE_SESSION], *events) == [None, None, None]
    assert codes(Past(exempt=(soon,)), [ONE_SESSION], *events) == [None, None, "session_limit"]


def test_a_pass_is_good_for_its_time():
    """One more device while it lasts."""
    past = Past(extra_devices=(Span(since=NOW, until=NOW + timedelta(seconds=100)),))

    answers = codes(past, [ONE_DEVICE], login(0, "a"), login(60, "b", browser=2), use(90, "b"), use(150, "b"))

    assert answers == [None, None, None, "device_limit"]


def test_a_forgotten_device_makes_room_from_then_on():
    """Its place is free once an operator has let go of it."""
    known = KnownDevice(fact=device(1), there=True, forgotten_at=NOW + timedelta(seconds=30))

    assert codes(Past(devices=(known,)), [ONE_DEVICE], login(10, "b", browser=2), login(60, "c", browser=2)) == [
        "device_limit",
        None,
    ]


def test_an_enrolment_counts_as_it_stood_at_the_time():
    """Frozen for a while, then active again."""
    open_, frozen = enrolment(), enrolment(status=EnrolmentStatus.FROZEN)
    past = Past(
        enrolments=(
            Standing(product_id="p", fact=open_),
            Standing(product_id="p", at=NOW + timedelta(seconds=30), fact=frozen),
            Standing(product_id="p", at=NOW + timedelta(seconds=90), fact=open_),
        )
    )

    answers = codes(past, [rule("enrolment")], login(0, "a"), use(60, "a"), use(120, "a"))

    assert answers == [None, "no_active_enrolment", None]


def test_what_is_kept_of_networks_is_bounded():
    """A session that roams for years is remembered by its newest addresses."""
    replay = Replay(Past(), terms(rule("network_limit", "log", params={"max": 1})))
    replay.feed(login(0, "a"))
    for step in range(1, 2_000):
        moved = use(60 * step, "a")
        moved = msgspec.structs.replace(moved, address=host(f"10.0.{step // 250}.{step % 250}"), place=None)
        replay.feed(moved)

    assert len(replay._networks) <= 2 * MOST_NETWORKS
