"""The limit on simultaneous sessions."""

from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accessguard.rules.model import Action, Activity, Per, SessionLimit, Stage
from accessguard.rules.session import too_many_sessions
from tests.build import NOW, device, facts, number, session, session_limit

TWO = session_limit(2)
NEWEST = Action.EVICT_OLDEST
FIRST = Action.DENY_NEW


@pytest.mark.parametrize(
    ("others", "refused"),
    [
        pytest.param([], False, id="alone"),
        pytest.param([session("b", started=1)], False, id="one newer"),
        pytest.param([session("b", started=1), session("c", started=2)], True, id="two newer"),
        pytest.param([session("b", started=1), session("c", started=-2)], False, id="one newer, one older"),
        pytest.param([session("b", started=1), session("c", started=2, idle=30)], False, id="one idle for the window"),
        pytest.param([session("b", started=1), session("c", started=2, idle=29.99)], True, id="one idle for just less"),
        pytest.param([session("b"), session("c")], True, id="two of the same instant with greater ids"),
        pytest.param([session("A"), session("B")], False, id="two of the same instant with smaller ids"),
    ],
)
def test_the_newest_sessions_keep_their_place(others, refused):
    """With two allowed, a session yields to two newer active ones, to no others."""
    finding = too_many_sessions(facts(others=tuple(others)), TWO, NEWEST)

    assert (finding is not None) is refused


@pytest.mark.parametrize(
    ("others", "refused"),
    [
        pytest.param([session("b", started=-1)], False, id="one older"),
        pytest.param([session("b", started=-1), session("c", started=-2)], True, id="two older"),
        pytest.param([session("b", started=1), session("c", started=2)], False, id="two newer"),
        pytest.param([session("A"), session("B")], True, id="two of the same instant with smaller ids"),
        pytest.param(
            [session("b", started=-1), session("c", started=-2, idle=30)], False, id="one idle for the window"
        ),
    ],
)
def test_the_first_sessions_keep_their_place_when_new_ones_are_refused(others, refused):
    """With `deny_new`, the oldest active ones stay."""
    finding = too_many_sessions(facts(others=tuple(others)), TWO, FIRST)

    assert (finding is not None) is refused


def test_a_session_that_left_the_window_comes_back_as_a_newcomer():
    """However old it is, the places are taken by those that were active."""
    back = session("a", started=-60, idle=30)
    active = (session("b", started=1), session("c", started=2))

    finding = too_many_sessions(facts(session=back, others=active), TWO, FIRST)

    assert finding is not None
    assert (finding.limit, finding.counted, finding.sessions) == (2, 3, ("b", "c"))


@pytest.mark.parametrize(
    ("others", "refused"),
    [
        pytest.param([session("b", idle=5), session("c", idle=9)], True, id="two used later"),
        pytest.param([session("b", idle=5), session("c", idle=11)], False, id="one used later"),
        pytest.param(
            [session("b", idle=10, started=1), session("c", idle=10, started=2)], True, id="as idle, but newer"
        ),
        pytest.param([session("b", idle=10), session("c", idle=10)], True, id="as idle and as new, with greater ids"),
    ],
)
def test_the_sessions_used_last_keep_their_place_when_idle_ones_are_evicted(others, refused):
    """With `evict_idle`, the one that was idle longest yields."""
    mine = session("a", idle=10)

    finding = too_many_sessions(facts(session=mine, others=tuple(others)), TWO, Action.EVICT_IDLE)

    assert (finding is not None) is refused


@pytest.mark.parametrize(
    ("action", "ended"),
    [
        pytest.param(Action.EVICT_OLDEST, ("old", "middle"), id="oldest"),
        pytest.param(Action.EVICT_IDLE, ("new", "old"), id="idle"),
        pytest.param(Action.EVICT_OTHERS, ("old", "middle", "new"), id="others"),
    ],
)
def test_a_login_ends_the_whole_overflow_in_order(action, ended):
    """Three are open, two are allowed, a fourth comes: two go, in the order of the action, or all of them."""
    others = (
        session("middle", started=2, idle=1),
        session("new", started=3, idle=9),
        session("old", started=1, idle=5),
        session("gone", started=0, idle=45),
    )
    login = facts(stage=Stage.LOGIN, session=session("login", started=60), others=others)

    finding = too_many_sessions(login, TWO, action)

    assert finding is not None
    assert finding.evict == ended
    assert (finding.limit, finding.counted) == (2, 4)


@pytest.mark.parametrize("action", [Action.EVICT_OLDEST, Action.EVICT_IDLE, Action.EVICT_OTHERS])
def test_a_login_that_fits_ends_nothing(action):
    """With one place left, nobody has to go."""
    login = facts(stage=Stage.LOGIN, session=session("login", started=60), others=(session("b"),))

    assert too_many_sessions(login, TWO, action) is None


def test_a_login_is_refused_by_every_active_session_when_new_ones_are_refused():
    """At a login the session has no place yet, whatever its time says."""
    early = session("login", started=-100, idle=0)
    login = facts(stage=Stage.LOGIN, session=early, others=(session("b"), session("c")))

    assert too_many_sessions(login, TWO, FIRST) is not None


@pytest.mark.parametrize(
    ("per", "refused"),
    [
        pytest.param(Per.MEMBER, True, id="member"),
        pytest.param(Per.DEVICE_CLASS, False, id="device class"),
        pytest.param(Per.APP, True, id="app"),
    ],
)
def test_a_limit_counts_within_its_unit(per, refused):
    """A phone and a laptop are counted apart by device class, together by app."""
    mine = session("a", device_class="mobile", app="courses")
    other = session("b", started=1, device_class="desktop", app="courses")
    limit = SessionLimit(max=1, per=per)

    finding = too_many_sessions(facts(session=mine, others=(other,)), limit, NEWEST)

    assert (finding is not None) is refused


@pytest.mark.parametrize(
    ("idles", "most", "frees_in"),
    [
        pytest.param([10], 1, 20, id="the only one"),
        pytest.param([10, 25], 1, 20, id="both have to go"),
        pytest.param([10, 25], 2, 5, id="one has to go"),
        pytest.param([1, 2, 3], 2, 28, id="two of three have to go"),
    ],
)
def test_a_refusal_says_when_a_place_frees_by_itself(idles, most, frees_in):
    """As soon as so many have been idle for the window that the session fits."""
    others = tuple(session(str(i), started=-1, idle=idle) for i, idle in enumerate(idles))
    login = facts(stage=Stage.LOGIN, session=session("login", started=60), others=others)

    finding = too_many_sessions(login, session_limit(most), FIRST)

    assert finding is not None
    assert finding.retry_at == NOW + timedelta(minutes=frees_in)
    later = msgspec.structs.replace(login, now=finding.retry_at)
    just_before = msgspec.structs.replace(login, now=finding.retry_at - timedelta(milliseconds=1))
    assert too_many_sessions(later, session_limit(most), FIRST) is None
    assert too_many_sessions(just_before, session_limit(most), FIRST) is not None


def test_a_case_is_about_the_device_which_outlives_the_session():
    """Ten refused logins from one device are one case."""
    on_device = facts(stage=Stage.LOGIN, device=device(7), others=(session("b"), session("c")))
    without = msgspec.structs.replace(on_device, device=None)

    subjects = [finding.subject for each in (on_device, without) if (finding := too_many_sessions(each, TWO, FIRST))]

    assert subjects == [str(number(7)), "a"]


MINUTES = st.integers(min_value=0, max_value=5)
SESSIONS = st.lists(
    st.builds(
        lambda name, started, idle: session(name, started=started, idle=idle),
        st.sampled_from([*"abcdefgh"]),
        MINUTES,
        MINUTES.map(lambda idle: idle * 10),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda each: each.id,
)
CHECKED = st.sampled_from([Action.EVICT_OLDEST, Action.EVICT_IDLE, Action.EVICT_OTHERS, Action.DENY_NEW])


def _allowed(sessions, limit, action):
    """Which of the member's sessions may go on, each asked at the same moment."""
    everybody = [
        (each, facts(session=each, others=tuple(other for other in sessions if other is not each)))
        for each in sessions
        if each.last_activity > NOW - limit.window
    ]
    return {each.id for each, asked in everybody if too_many_sessions(asked, limit, action) is None}


@given(SESSIONS, st.integers(min_value=1, max_value=4), CHECKED)
def test_as_many_active_sessions_are_allowed_as_the_limit_says(sessions, most, action):
    """Neither more nor less, whatever their times, with ties of start and of use."""
    limit = session_limit(most)
    active = [each for each in sessions if each.last_activity > NOW - limit.window]

    assert len(_allowed(sessions, limit, action)) == min(most, len(active))


@given(SESSIONS, st.integers(min_value=1, max_value=4), CHECKED)
def test_a_lower_limit_admits_nobody_new(sessions, most, action):
    """Whoever is in with one place less was in before."""
    fewer = _allowed(sessions, session_limit(most), action)
    more = _allowed(sessions, session_limit(most + 1), action)

    assert fewer <= more


@given(SESSIONS, st.randoms(), st.integers(min_value=1, max_value=3), st.sampled_from(Stage), CHECKED)
def test_the_order_of_the_others_does_not_matter(sessions, random, most, stage, action):
    """What a store answers first decides nothing."""
    mine, *others = sessions
    shuffled = others[:]
    random.shuffle(shuffled)

    findings = [
        too_many_sessions(facts(stage=stage, session=mine, others=tuple(each)), session_limit(most), action)
        for each in (others, shuffled)
    ]

    assert findings[0] == findings[1]


@given(SESSIONS, st.integers(min_value=1, max_value=4))
def test_after_a_login_no_more_are_left_than_allowed(sessions, most):
    """What an evicting login leaves fits the limit with it, and the newcomer is never among the ended."""
    newcomer = session("new", started=60)
    login = facts(stage=Stage.LOGIN, session=newcomer, others=tuple(sessions))

    finding = too_many_sessions(login, session_limit(most), Action.EVICT_OLDEST)

    ended = finding.evict if finding else ()
    left = [each for each in sessions if each.id not in ended and each.last_activity > NOW - timedelta(minutes=30)]
    assert len(left) + 1 <= max(most, 1)
    assert "new" not in ended


VIDEO = Activity.VIDEO_WATCH
WATCH = SessionLimit(max=1, activities=frozenset({VIDEO}))


@pytest.mark.parametrize(
    ("mine", "other", "refused"),
    [
        pytest.param(None, VIDEO, True, id="somebody watches"),
        pytest.param(None, Activity.LESSON_OPEN, False, id="somebody reads"),
        pytest.param(None, None, False, id="somebody has only signed in"),
        pytest.param(VIDEO, VIDEO, False, id="both watch, this one is the older session"),
        pytest.param(Activity.LESSON_OPEN, VIDEO, True, id="who left the video has left the place"),
    ],
)
def test_many_may_be_signed_in_and_one_may_watch(mine, other, refused):
    """A session takes a place while its last counted interaction is of the kinds that the rule names."""
    asked = facts(
        session=session("a", last_kind=mine), others=(session("b", started=1, last_kind=other),), activity=VIDEO
    )

    assert (too_many_sessions(asked, WATCH, FIRST) is not None) is refused


def test_a_pass_adds_a_place():
    """The limit that is told is the one that was applied."""
    asked = facts(others=(session("b", started=-1), session("c", started=-2), session("d", started=-3)))

    without = too_many_sessions(asked, TWO, FIRST)
    with_one = too_many_sessions(msgspec.structs.replace(asked, extra_sessions=1), TWO, FIRST)
    with_two = too_many_sessions(msgspec.structs.replace(asked, extra_sessions=2), TWO, FIRST)

    assert without is not None
    assert with_one is not None
    assert (without.limit, with_one.limit, with_two) == (2, 3, None)


@given(SESSIONS, st.integers(min_value=1, max_value=3), st.sampled_from([Action.EVICT_OLDEST, Action.EVICT_IDLE]))
def test_the_evicted_are_the_whole_overflow_in_the_documented_order(sessions, most, action):
    """L11: oldest first by start (or by use), then by id, as many as are too many and no more."""
    login = facts(stage=Stage.LOGIN, session=session("new", started=60), others=tuple(sessions))
    active = [each for each in sessions if each.last_activity > NOW - timedelta(minutes=30)]
    order = {
        Action.EVICT_OLDEST: lambda each: (each.started_at, each.id),
        Action.EVICT_IDLE: lambda each: (each.last_activity, each.started_at, each.id),
    }[action]

    finding = too_many_sessions(login, session_limit(most), action)

    expected = [each.id for each in sorted(active, key=order)[: max(0, len(active) + 1 - most)]]
    assert list(finding.evict if finding else ()) == expected
