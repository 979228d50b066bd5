"""The list of members: its page is found from an index first, then what it shows is read, for that page alone.

With a filter there are two ways to a page: to go along the order and leave out
whom the filter refuses, which is soon done where many fit; or to ask the
filter's own index who fits and sort those, where few do. Each is tried for a
bounded number of members, and where neither fills the page it ends early,
with the place to go on from (docs/directory.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Final

import msgspec

from accessguard.database import Database, Row
from accessguard.errors import ErrorCode, GuardError
from accessguard.listing import Short
from accessguard.members.filing import Filing
from accessguard.members.latest import OWN as LATEST
from accessguard.members.latest import RESTS
from accessguard.members.model import Member, MemberFilter, MemberSort
from accessguard.members.search import likes, telling, wanted
from accessguard.members.sheets import COUNTING_S, MOVED
from accessguard.members.store import OF_PAGE, member_of
from accessguard.slices import in_slices

Place = tuple[str, str]
"""The sort key of a member, written out, and its id."""

GLANCE: Final = 1_000
"""Members of the order that a search looks at before anything else, some 10 ms: a letter or a common name needs no more."""
FEW: Final = 6_000
"""So many found by a search are sorted; with more of them, the way along the order is likely to be the shorter one."""
MANY: Final = 20_000
"""So many are sorted where the way along the order was none: some 300 ms."""
WALK: Final = 5_000
"""How many members are looked at along an order at first, some 20 ms; twice as many by a search, which has looked at GLANCE before."""
FURTHER: Final = 40_000
"""How many of them at most, where the first ones promise a page by then, or more than `MANY` fit: some 400 ms."""
LIKELY: Final = 1.3
"""So many times as far as chance would have it is far enough, for 97 pages of a hundred (of 50 members, a Poisson distribution)."""
SHOWN: Final = 25
"""So many are read at once: to take their rows in is some 0.25 ms, in which nobody else has a turn."""
UNFILED: Final = 500
"""Members and enrolments that were changed since, taken in before a list is read; upkeep takes the rest."""

# Names and types of all that may be asked for, so that each statement takes the same values.
ASKED: Final = """
    WITH asked AS (
        SELECT $1::text AS tenant, $2::text AS reader, $3::timestamptz AS now, $4::text AS after_key, $5::text AS after_id,
               $6::bigint AS most, $7::text[] AS pieces, $8::text AS exact, $9::text AS tag, $10::text AS product,
               $11::text AS sheet, $12::text[] AS one_way, $13::text[] AS other_way, $14::text[] AS third_way
    )
"""

RESTRICTED: Final = "v.effect IN ('denied', 'evicted')"

# Whether a member `m` fits, told from that member alone.
FITS: Final = {
    "q": """ AND (m.id = $8 OR (
        SELECT s.words LIKE ALL($12) OR s.words LIKE ALL($13) OR s.words LIKE ALL($14) FROM member_search s
         WHERE s.member_id = m.id AND s.tenant = $1))""",
    "product": " AND EXISTS (SELECT FROM enrolment p WHERE p.tenant = $1 AND p.member_id = m.id AND p.product_id = $10)",
    "tag": " AND $9 = ANY(m.tags)",
    "restricted": " AND EXISTS (SELECT FROM violation v WHERE v.tenant = $1 AND v.member_id = m.id AND <restricted>)",
    # A probe for each member, whatever the planner thinks: joined with a whole sheet, it would read that first.
    "unread": " AND (SELECT u.unread FROM unread_member u WHERE u.tenant = $1 AND u.member_id = m.id AND u.reader = $11) > 0",
    "read": " AND (SELECT u.unread FROM unread_member u WHERE u.tenant = $1 AND u.member_id = m.id AND u.reader = $11) IS NULL",
    "few": " AND m.id = ANY($7::text[])",
    "active": " AND EXISTS (<enrolled>)",
    "inactive": " AND NOT EXISTS (<enrolled>)",
}
# As in rules/enrolment.py: access now, whatever the directory knew when it was filed.
ENROLLED: Final = """
        SELECT FROM enrolment e
         WHERE e.tenant = $1 AND e.member_id = m.id AND e.status <> 'deactivated'
           AND e.starts_at <= $3 AND (e.ends_at IS NULL OR e.ends_at > $3) AND (e.status <> 'frozen' OR e.reopens_at <= $3)"""

# Who fits, from the filter's own index. Of several filters the first of this order is asked.
OWN: Final = {
    "q": """
        SELECT $8::text AS id
         UNION
        (SELECT s.member_id FROM unnest($7::text[]) WITH ORDINALITY AS way(pieces, number), LATERAL (
                SELECT member_id FROM member_search k
                 WHERE k.tenant = $1 AND member_grams(k.tenant, k.words, k.tags) @> member_grams($1, way.pieces, '{}')
                   AND CASE way.number WHEN 1 THEN k.words LIKE ALL($12) WHEN 2 THEN k.words LIKE ALL($13)
                                       ELSE k.words LIKE ALL($14) END) s
         LIMIT $6)""",
    "product": "SELECT member_id AS id FROM enrolment WHERE tenant = $1 AND product_id = $10",
    "tag": """
        SELECT member_id AS id FROM member_search k
         WHERE k.tenant = $1 AND member_grams(k.tenant, k.words, k.tags) @> member_grams($1, '', ARRAY[$9::text])""",
    "restricted": "SELECT DISTINCT member_id AS id FROM violation v WHERE v.tenant = $1 AND <restricted>",
    "unread": "SELECT member_id AS id FROM unread_member WHERE tenant = $1 AND reader = $11",
    "inactive": "SELECT id FROM member WHERE tenant || '' = $1 AND CASE WHEN standing = 5 THEN 1 ELSE 0 END = 0",
    "active": "SELECT id FROM member WHERE tenant || '' = $1 AND CASE WHEN standing = 5 THEN 1 ELSE 0 END = 1",
}
TOLD_BY_OWN: Final = frozenset({"q", "product", "restricted", "unread"})
"""Filters whose own index names nobody who does not fit."""
COMMON: Final = {"<restricted>": RESTRICTED, "<enrolled>": ENROLLED}

# By what a list is ordered, if not by last activity, before the id; and the type of that. Members without an unread
# case have only the id.
KEYS: Final = {
    MemberSort.FIRST_ACCESS: ("coalesce(m.first_access_at, '-infinity'::timestamptz)", "::timestamptz"),
    MemberSort.LAST_ACCESS: ("coalesce(m.last_access_at, '-infinity'::timestamptz)", "::timestamptz"),
    MemberSort.NAME: ("m.name", ""),
}

# Of last activity there are two places, each in its order: members whose row says it, and those who are active now.
BOTH: Final = f"""
    SELECT * FROM (
        (SELECT m.id, m.tags, {LATEST} AS key FROM member m WHERE <own> <after> AND {RESTS} ORDER BY <order> LIMIT <bound>)
         UNION ALL
        (SELECT r.member_id, (SELECT t.tags FROM member t WHERE t.tenant = $1 AND t.id = r.member_id), r.at FROM member_activity r
          WHERE r.tenant = $1 <standing> <past> ORDER BY r.at <way>, r.member_id <way> LIMIT <bound>)) m
     ORDER BY <again> <walk>
"""  # noqa: S608 - all parts are constants
STANDING: Final = """
            AND (SELECT CASE WHEN t.standing = 5 THEN 1 ELSE 0 END FROM member t WHERE t.tenant = $1 AND t.id = r.member_id) = <is>
"""
NOW: Final = f"coalesce((SELECT r.at FROM member_activity r WHERE r.member_id = m.id AND r.tenant = $1), {LATEST})"  # noqa: S608

# Along the order, as far as `<walk>` members; then whoever fits of them.
ALONG: Final = """
    SELECT m.id, m.key::text AS sort_key
      FROM (<members>) m
     WHERE true <fits> ORDER BY <again> LIMIT $6
"""
# The same, and at its end how many were looked at, and the last of them: where the next page begins, if this one is not full.
AS_FAR: Final = """
    , seen AS MATERIALIZED (SELECT m.id, m.tags, m.key FROM (<members>) m)
    (SELECT m.id, m.key::text AS sort_key, 0 AS seen FROM seen m WHERE true <fits> ORDER BY <again> LIMIT $6)
     UNION ALL
    (SELECT m.id, m.key::text, (SELECT count(*) FROM seen) FROM seen m ORDER BY <back> LIMIT 1)
"""

FROM_ROWS: Final = "SELECT m.*, <key> AS key FROM member m WHERE <own> <after> ORDER BY <order> <walk>"

# Of those whose ids are known. They are looked up one by one, some 10 us each, whatever the planner thinks: to go along the
# index in the asked order looks shorter to it, and is not where they all lie at its end.
SORTED: Final = """
    , found AS MATERIALIZED (
        SELECT m.id, <key> AS key
          FROM (SELECT unnest($7::text[]) AS id ORDER BY 1) f, LATERAL (
               SELECT * FROM member WHERE tenant = $1 AND id = f.id OFFSET 0) m
         WHERE true <fits>)
    SELECT m.id, m.key::text AS sort_key FROM found m WHERE true <beyond> ORDER BY <again> LIMIT $6
"""

# Those with unread cases, by their number.
COUNTED: Final = """
    SELECT m.id, u.unread::text AS sort_key FROM unread_member u JOIN member m ON m.tenant = $1 AND m.id = u.member_id
     WHERE u.tenant = $1 AND u.reader = $11 <after> <fits> ORDER BY u.unread <way>, u.member_id <way> LIMIT $6
"""
CAUGHT_UP: Final = "SELECT unread_catch_up($1, $2, $3)"
"""Bring what a reader has not read up to date; the name that it is found by."""

FEW_OF: Final = ", found AS (<own>) SELECT id FROM found LIMIT $6"
TELLS: Final = "SELECT 1 FROM enrolment WHERE tenant = $1 ORDER BY member_id, product_id LIMIT 1"


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """What makes one statement: its order, whether it begins at a place, its filters; `standing`: those (in)active alone."""

    sort: MemberSort
    descending: bool
    placed: bool
    filters: tuple[str, ...]

    @property
    def standing(self) -> str | None:
        """Which status is asked for, as SQL writes it; None for any."""
        return "1" if "active" in self.filters else "0" if "inactive" in self.filters else None


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One page to be found: its filters by name, their values, its order."""

    tenant: str
    reader: str
    now: datetime
    filters: tuple[str, ...]
    pieces: tuple[str, ...]
    exact: str | None
    tag: str | None
    product_id: str | None
    sort: MemberSort
    descending: bool
    after: Place | None
    limit: int
    likes: tuple[Sequence[str], Sequence[str], Sequence[str]] = ((), (), ())
    """For each way to read what is searched for, what a member's words must all be like."""
    sheet: str | None = None
    """Whose unread cases they are told by; None where nobody asks for that."""

    @property
    def way(self) -> Way:
        """What its statement is made from."""
        placed = self.after is not None
        return Way(sort=self.sort, descending=self.descending, placed=placed, filters=self.filters)

    def values(self, limit: int | None = None) -> tuple[object, ...]:
        """What the statements take, in their order."""
        return (
            self.tenant,
            self.reader,
            self.now,
            *(self.after or (None, None)),
            limit or self.limit,
            list(self.pieces),
            self.exact,
            self.tag,
            self.product_id,
            self.sheet,
            *(each or None for each in self.likes),
        )


class Directory:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach; lists are read from `lists`, if given."""

    def __init__(self, db: Database, lists: Database | None = None) -> None:
        self._db = db
        self._filing = Filing(db)
        self._lists = lists or db

    async def listed(
        self,
        tenant: str,
        found: MemberFilter,
        *,
        reader: str,
        now: datetime,
        sort: MemberSort,
        descending: bool,
        after: Place | None,
        limit: int,
        country: str | None = None,
    ) -> Sequence[tuple[Member, Place]]:
        """One page of members, each with the place (sort key, id) to go on after; `Short` where it would take too long.

        `country` is what telephone numbers without a country code belong to.
        """
        ways = wanted(found.q, country) if found.q else ()
        asked = Asked(
            tenant=tenant,
            reader=reader,
            now=now,
            filters=_filters(found),
            pieces=tuple(telling(each) for each in ways),
            likes=likes(ways),
            exact=found.q,
            tag=found.tag,
            product_id=found.product_id,
            sort=sort,
            descending=descending,
            after=(_checked(sort, after[0]), after[1]) if after else None,
            limit=limit,
        )
        if asked.after is None and {"q", "tag", "active", "inactive"} & set(asked.filters):
            await self._filing.caught_up(tenant, now=now, most=UNFILED)
        standing = await self._standing(asked)
        if standing is None:
            return []
        return await self._filled(await self._caught_up(standing))

    async def _filled(self, asked: Asked) -> Sequence[tuple[Member, Place]]:
        """The page; others come for those who have gone since they were found, as a short page is the end of the list."""
        found: list[tuple[Member, Place]] = []
        while True:
            places = await self._places(asked)
            shown = await self._shown(asked, places)
            found += shown
            if isinstance(places, Short):
                return Short(found, further=places.further)
            if len(places) < asked.limit or len(shown) == len(places):
                return found
            asked = msgspec.structs.replace(asked, after=places[-1], limit=asked.limit - len(shown))

    async def _caught_up(self, asked: Asked) -> Asked:
        """The same, and by which sheet unread cases are told, if they matter."""
        if asked.sort is not MemberSort.UNREAD and "unread" not in asked.filters:
            return asked
        sheet = await self._db.value(CAUGHT_UP, asked.tenant, asked.reader, MOVED, timeout_s=COUNTING_S)
        return msgspec.structs.replace(asked, sheet=sheet)

    async def _standing(self, asked: Asked) -> Asked | None:
        """The same without a question for who is active where everybody is; None where nobody can fit."""
        if not {"active", "inactive"} & set(asked.filters) or await self._lists.value(TELLS, asked.tenant):
            return asked
        if "inactive" in asked.filters:
            return None
        return msgspec.structs.replace(asked, filters=tuple(each for each in asked.filters if each != "active"))

    async def _places(self, asked: Asked) -> Sequence[Place]:
        return await (self._by_unread(asked) if asked.sort is MemberSort.UNREAD else self._by_key(asked))

    async def _by_key(self, asked: Asked) -> Sequence[Place]:
        if asked.filters in ((), ("read",)):
            return await self._read(_along(asked.way), asked)
        if asked.filters[0] == "q":
            rows = await self._read(_along(asked.way, GLANCE), asked)
            if len(rows) == asked.limit:
                return rows
            promising = 2 * WALK * len(rows) >= GLANCE * asked.limit
            if not promising and (few := await self._named(asked, FEW)):
                return await self._read(_sorted(few.way), few)
        walked = await self._walked(asked)
        if len(walked) == asked.limit:
            return walked
        named = await self._named(asked, MANY)
        return await (self._read(_sorted(named.way), named) if named else self._as_far(asked))

    async def _walked(self, asked: Asked) -> Sequence[Place]:
        """Whoever fits of the first members of the order, and of further ones where that promises a page."""
        walk = max(2 * WALK if asked.filters[0] == "q" else WALK, 20 * asked.limit)
        rows = await self._read(_along(asked.way, walk), asked)
        if further := _further(walk, len(rows), asked.limit):
            rows = await self._read(_along(asked.way, further), asked)
        return rows

    async def _as_far(self, asked: Asked) -> Sequence[Place]:
        """Whoever fits of as many members as may be looked at for one page, and where to go on if that does not fill it."""
        *rows, last = await self._source(asked).fetch(_as_far(asked.way), *asked.values()) or (None,)
        places = [(row["sort_key"], row["id"]) for row in rows]
        if last is None or last["seen"] < FURTHER or len(places) == asked.limit:
            return places
        return Short(places, further=(last["sort_key"], last["id"]))

    async def _named(self, asked: Asked, most: int) -> Asked | None:
        """The same, asked of those alone that its first filter's own index names; None where they are more."""
        own, *others = asked.filters
        found = await self._source(asked).fetch(_own(own), *asked.values(most + 2))
        if len(found) > most:
            return None
        kept = others if own in TOLD_BY_OWN else asked.filters
        return msgspec.structs.replace(asked, filters=("few", *kept), pieces=tuple(row["id"] for row in found))

    async def _by_unread(self, asked: Asked) -> Sequence[Place]:
        """Those with unread cases by their number, and those without by their ids; which come first is the order's."""
        within = asked.after is not None and (asked.after[0] == "0") is not asked.descending
        parts = (self._counted, self._without) if asked.descending else (self._without, self._counted)
        rows: list[Place] = []
        for number, part in enumerate(parts):
            past = asked.after is not None and not within and number == 0
            if not past and len(rows) < asked.limit:
                after = asked.after if within is (number == 0) else None
                more = await part(msgspec.structs.replace(asked, after=after, limit=asked.limit - len(rows)))
                rows += more
                if isinstance(more, Short):
                    return Short(rows, further=more.further)
        return rows

    async def _counted(self, asked: Asked) -> Sequence[Place]:
        """Members with unread cases, by how many."""
        few = await self._named(asked, FEW) if "q" in asked.filters else None
        return await self._read(_counting((few or asked).way), few or asked)

    async def _without(self, asked: Asked) -> Sequence[Place]:
        """Members without an unread case, by id."""
        if "unread" in asked.filters:
            return []
        return await self._by_key(msgspec.structs.replace(asked, filters=(*asked.filters, "read")))

    async def _read(self, statement: str, asked: Asked) -> list[Place]:
        rows = await self._source(asked).fetch(statement, *asked.values())
        return [(row["sort_key"], row["id"]) async for row in in_slices(rows)]

    def _source(self, asked: Asked) -> Database:
        """Where a page is found and read: a replica may not have what has just been counted."""
        return self._lists if asked.sheet is None else self._db

    async def _shown(self, asked: Asked, places: Sequence[Place]) -> Sequence[tuple[Member, Place]]:
        """What the page shows of each; one that has gone meanwhile is left out. Of many some are read at a time."""
        shown: list[tuple[Member, Place]] = []
        for begin in range(0, len(places), SHOWN):
            some = places[begin : begin + SHOWN]
            ids = sorted(member_id for _, member_id in some)
            rows = await self._source(asked).fetch(OF_PAGE, asked.tenant, asked.reader, asked.now, ids)
            by_id: dict[str, Row] = {row["id"]: row for row in rows}
            there = [place for place in some if place[1] in by_id]
            shown += [(member_of(by_id[place[1]]), place) async for place in in_slices(there)]
        return shown


def _filters(found: MemberFilter) -> tuple[str, ...]:
    """The filters that are asked for, the one that is likely to leave fewest first."""
    there = {
        "q": bool(found.q and found.q.strip()),
        "product": found.product_id is not None,
        "tag": found.tag is not None,
        "restricted": found.restricted,
        "unread": found.unread,
        "inactive": found.status == "inactive",
        "active": found.status == "active",
    }
    return tuple(name for name, asked in there.items() if asked)


def _further(walk: int, found: int, wanted: int) -> int:
    """How far to go along the order where `found` of `wanted` fitted in `walk` members; 0 where that is no way.

    Farther than chance would have it, and one of few lengths, as each is a
    statement of its own.
    """
    if found == wanted:
        return 0
    return next((each for each in (2 * walk, 4 * walk, FURTHER) if each * found >= LIKELY * walk * wanted), 0)


# Put together from constants alone, once for each set of filters and order.


@cache
def _own(name: str) -> str:
    return ASKED + _filled(FEW_OF, {"<own>": OWN[name]})


@cache
def _along(way: Way, walk: int = 0) -> str:
    return ASKED + _filled(ALONG, {"<members>": _members(way, walk)} | _words(way))


@cache
def _as_far(way: Way) -> str:
    return ASKED + _filled(AS_FAR, {"<members>": _members(way, FURTHER)} | _words(way))


def _members(way: Way, walk: int) -> str:
    """Members along the order, `walk` of them; 0: as many as the page may hold."""
    own = "m.tenant = $1"
    bound = str(walk or "$6")
    if way.sort is not MemberSort.LAST_ACTIVITY:
        return _filled(FROM_ROWS, {"<own>": own, "<walk>": f"LIMIT {walk}" if walk else ""})
    standing = ""
    if walk and way.standing is not None:
        own = f"m.tenant || '' = $1 AND CASE WHEN m.standing = 5 THEN 1 ELSE 0 END = {way.standing}"
        standing = STANDING.replace("<is>", way.standing)
    return _filled(BOTH, {"<own>": own, "<standing>": standing, "<bound>": bound, "<walk>": f"LIMIT {bound}"})


@cache
def _sorted(way: Way) -> str:
    return ASKED + _filled(SORTED, _words(way, latest=NOW) | {"<fits>": _fits(way.filters[1:])})


@cache
def _counting(way: Way) -> str:
    sign, order = ("<", "DESC") if way.descending else (">", "ASC")
    after = f"AND (u.unread, u.member_id) {sign} ($4::text::bigint, $5)" if way.placed else ""
    return ASKED + _filled(COUNTED, {"<fits>": _fits(way.filters), "<after>": after, "<way>": order})


def _words(way: Way, *, latest: str = LATEST) -> dict[str, str]:
    """What stands for what in a statement; `latest` tells the last activity of a member `m`."""
    sign, order = ("<", "DESC") if way.descending else (">", "ASC")
    key, kind = (latest, "::timestamptz") if way.sort is MemberSort.LAST_ACTIVITY else KEYS.get(way.sort, (None, ""))
    back = "ASC" if way.descending else "DESC"
    columns, place = (f"({key}, m.id)", f"($4::text{kind}, $5)") if key else ("m.id", "$5")
    beyond = "(m.key, m.id)" if key else "m.id"
    return {
        "<after>": f"AND {columns} {sign} {place}" if way.placed else "",
        "<order>": f"{key} {order}, m.id {order}" if key else f"m.id {order}",
        "<again>": f"m.key {order}, m.id {order}" if key else f"m.id {order}",
        "<back>": f"m.key {back}, m.id {back}" if key else f"m.id {back}",
        "<beyond>": f"AND {beyond} {sign} {place}" if way.placed else "",
        "<key>": key or "0",
        "<past>": f"AND (r.at, r.member_id) {sign} {place}" if way.placed else "",
        "<way>": order,
        "<fits>": _fits(way.filters),
    }


def _fits(filters: tuple[str, ...]) -> str:
    return "".join(FITS.get(each, "") for each in filters)


def _filled(statement: str, words: dict[str, str]) -> str:
    for word, text in (words | COMMON).items():
        statement = statement.replace(word, text)
    return statement


def _checked(sort: MemberSort, key: str) -> str:
    """The key of a place in a list, if that sort can have it; PostgreSQL need not look at it where there are no rows."""
    try:
        if sort is MemberSort.UNREAD:
            int(key).to_bytes(8, signed=True)
        elif sort is not MemberSort.NAME and key != "-infinity":
            datetime.fromisoformat(key)
    except (ValueError, OverflowError):
        raise GuardError(ErrorCode.INVALID, "There is no such place in this list.") from None
    return key
