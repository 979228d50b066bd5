"""Heads are read once: what is remembered of them says what reading them again would."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accessguard.api import head as room
from accessguard.api.head import Call, Head, Heads, field, plain_start, shape
from tests.api.lanes import head
from tests.fuzz import examples
from tests.service import TOKEN_S, Service, token

START = "POST /v1/check HTTP/1.1"
ONCE = ("Host", "User-Agent", "Content-Type", "Authorization", "Content-Length", "AccessGuard-Tenant", "Connection")


@pytest.fixture
def heads(service: Service) -> Heads:
    """A memory of heads that knows none."""
    return Heads(service.context)


@pytest.fixture(scope="module")
def bearer() -> tuple[str, str]:
    """A genuine caller."""
    return ("Authorization", f"Bearer {token('t1', 'platform')}")


def test_a_plain_head_says_its_length_its_tenant_and_until_when(heads, bearer, service):
    """For a check, for a batch and for a login."""
    fields = [("Host", "h"), bearer, ("Content-Length", "42")]

    one = heads.read(head(START, fields))
    many = heads.read(head("POST /v1/checks HTTP/1.1", fields))
    login = heads.read(head("POST /v1/logins HTTP/1.1", fields))

    assert one is not None
    assert many is not None
    assert login is not None
    assert (one.length, one.fast, one.call, one.tenant) == (42, True, Call.CHECK, "t1")
    assert (many.length, many.fast, many.call) == (42, True, Call.CHECKS)
    assert (login.length, login.fast, login.call) == (42, True, Call.LOGIN)
    assert -100_000 < one.until_ms - service.clock() - TOKEN_S * 1000 <= 0


def test_a_login_under_a_key_is_not_the_fast_lanes(heads, bearer):
    """A check pays no attention to one."""
    fields = [("Host", "h"), bearer, ("Content-Length", "42"), ("Idempotency-Key", "again")]

    login = heads.read(head("POST /v1/logins HTTP/1.1", fields))
    check = heads.read(head(START, fields))

    assert login == Head(42)
    assert check is not None
    assert check.fast


@pytest.mark.parametrize(
    ("start", "fields", "length"),
    [
        pytest.param("GET /healthz HTTP/1.1", [("Host", "h")], 0, id="another path"),
        pytest.param("POST /v1/rules HTTP/1.1", [("Host", "h"), ("Content-Length", "7")], 7, id="with a body"),
        pytest.param(START, [("Host", "h"), ("Content-Length", "7")], 7, id="no token"),
        pytest.param(START, [("Host", "h"), ("Content-Length", "7"), ("Content-Type", "text/plain")], 7, id="a text"),
    ],
)
def test_of_another_plain_head_only_its_end_is_known(heads, start, fields, length):
    """Whatever it asks is aiohttp's to answer."""
    assert heads.read(head(start, fields)) == Head(length)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([], id="no host"),
        pytest.param([("Host", "h"), ("host", "h")], id="two hosts"),
        pytest.param([("Host", "h"), ("Content-Length", "1"), ("content-length", "1")], id="two lengths"),
        pytest.param([("Host", "h"), ("Content-Length", "1, 1")], id="a list of lengths"),
        pytest.param([("Host", "h"), ("Content-Length", "")], id="an empty length"),
        pytest.param([("Host", "h"), ("Content-Length", "1234567890")], id="a length without bounds"),
        pytest.param([("Host", "h"), ("Transfer-Encoding", "chunked")], id="chunks"),
        pytest.param([("Host", "h"), ("Connection", "close")], id="close"),
        pytest.param([("Host", "h"), ("Expect", "100-continue")], id="expect"),
        pytest.param([("Host", "h"), ("X", "a\nb")], id="bare LF"),
        pytest.param([("Host", "h"), ("X", "a\x80b")], id="obs-text"),
        pytest.param([("Host", "h"), ("X Y", "a")], id="space in a name"),
        pytest.param([("Host", "h"), *((f"X-{n}", "1") for n in range(200))], id="many"),
    ],
)
def test_a_head_that_is_not_plain_is_aiohttps(heads, fields):
    """None, every time it comes."""
    asked = head(START, fields)

    assert [heads.read(asked) for _ in range(3)] == [None] * 3
    assert heads.known(asked) is None


def test_a_head_is_remembered_when_it_comes_again(heads, bearer):
    """One that never does takes no room, and neither does one that the lane cannot answer."""
    for number in range(50):
        heads.read(head(START, [("Host", "h"), bearer, ("X-Request", str(number)), ("Content-Length", "2")]))
    once = len(heads._heads)
    again = head(START, [("Host", "h"), bearer, ("Content-Length", "2")])
    other = head("GET / HTTP/1.1", [("Host", "h")])
    for asked in (again, other):
        for _ in range(3):
            heads.read(asked)

    assert once == 0
    assert list(heads._heads) == [again]


def test_everything_that_is_remembered_is_bounded(heads, monkeypatch, bearer):
    """A full memory is begun anew, and reads on."""
    monkeypatch.setattr(room, "MOST_HELD", 5)
    for number in range(40):
        fields = [("Host", "h"), bearer, (f"X-{number}", "1"), ("Content-Length", str(number))]
        for _ in range(2):
            found = heads.read(head(START, fields))
            assert found is not None
            assert found.length == number
    assert max(map(len, (heads._heads, heads._seen, heads._lines, heads._callers))) <= 5


def test_a_long_line_is_read_and_not_remembered(heads, bearer):
    """A cookie of two kilobytes is as good as any, and worth nothing the next time."""
    fields = [("Host", "h"), bearer, ("Cookie", "x" * 3000), ("Content-Length", "2")]

    found = heads.read(head(START, fields))

    assert found is not None
    assert found.fast
    assert not any(len(line) > room.LONGEST_KEPT for line in heads._lines)


names = st.sampled_from(
    ["X", "x-id", "Cookie", "User-Agent", "Host", "Content-Length", "Accept", "Server", "ETag", "TE"]
)
values = st.one_of(
    st.sampled_from(["", "1", " 2", "3 ", "h", "a\tb", "a\0b", "a\nb", "a\r", "\x80", "keep-alive", "x" * 5900]),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12),
    st.integers(0, 10**10).map(str),
)
lists = st.lists(st.tuples(names, values), max_size=6)


@examples(400)
@given(lists=st.lists(lists, min_size=3, max_size=3), good=st.booleans(), data=st.data())
def test_a_shape_says_of_a_head_what_reading_it_says(heads, bearer, lists, good, data):
    """Or nothing at all: for any three heads, of which the first two made the shape."""
    if good:  # the same fields in all three, with other values
        lists = [[(name, data.draw(values)) for name, _ in lists[0]] for _ in range(3)]
    first, second, third = (
        head(START, [bearer, ("Content-Length", "5"), ("Host", "h"), *fields][not good :]) for fields in lists
    )
    read = [heads.read(each) for each in (first, second)]
    if not all(each is not None and each.fast for each in read):
        return
    assert read[1] is not None

    found = shape(first, second, read[1])

    for each in (first, second, third):
        said = found.read(each) if found else -1
        if found and said >= 0:
            assert msgspec.structs.replace(found.head, length=said) == heads.read(each)


def test_a_shape_covers_what_varies_and_nothing_else(heads, bearer):
    """Request ids, user agents and lengths; never the caller, the tenant or the path."""

    def of(agent: str, length: int, *more: tuple[str, str], start: str = START) -> bytes:
        return head(start, [("Host", "h"), ("User-Agent", agent), bearer, ("Content-Length", str(length)), *more])

    known = heads.read(of("b", 20))
    assert known is not None
    found = shape(of("a", 10), of("b", 20), known)
    assert found is not None

    assert msgspec.structs.replace(found.head, length=found.read(of("c", 30))) == heads.read(of("c", 30))
    for other in (
        of("c", 30, ("X", "1")),
        of("c", 30, start="POST /v1/checks HTTP/1.1"),
        of("c\0", 30),
        of("c" * 6000, 30),
        of("c", 30).replace(b"Bearer ", b"Bearer x"),
        of("c", 30).replace(b": 30", b": 3 0"),
        of("c", 30).replace(b": 30", b": "),
        of("c", 30).replace(b"Host: h", b"Host: i"),
    ):
        assert found.read(other) == -1
    assert shape(of("a", 10), of("a", 10, ("X", "1")), known) is None
    assert shape(b"", of("b", 20), known) is None
    assert shape(of("a", 10), of("a", 10), known) is None


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b"Host: h", (b"Host", b"h")),
        (b"X:", (b"X", b"")),
        (b"X: \t a b \t", (b"X", b"a b")),
        (b"X:a:b", (b"X", b"a:b")),
        (b"X", None),
        (b": a", None),
        (b"X : a", None),
        (b"X: a\x00", None),
        (b" X: a", None),
        (b"", None),
    ],
)
def test_a_field_is_a_token_a_colon_and_visible_text(line, found):
    """RFC 9112, 5."""
    assert field(line) == found


@pytest.mark.parametrize(
    ("line", "plain"),
    [
        (b"GET / HTTP/1.1", True),
        (b"OPTIONS /x?y=z HTTP/1.1", True),
        (b"OPTIONS * HTTP/1.1", False),
        (b"GET  / HTTP/1.1", False),
        (b"GET /\t HTTP/1.1", False),
        (b"GET /a b HTTP/1.1", False),
        (b"GET / HTTP/1.0", False),
        (b"GET http://h/ HTTP/1.1", False),
        (b"GET /\xc3\xa9 HTTP/1.1", False),
        (b"TRACE / HTTP/1.1", False),
        (b"", False),
    ],
)
def test_a_plain_first_line_is_a_usual_one(line, plain):
    """Everything else is aiohttp's to judge."""
    assert plain_start(line) is plain
