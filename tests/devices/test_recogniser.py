"""The second look: told once for all, never waited for, and never missed when it cannot be had."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import psutil
import pytest

from accessguard.database import Database
from accessguard.devices.browser import DeviceClass, recognise, same
from accessguard.devices.inquiry import Inquiry, InquiryError
from accessguard.devices.recogniser import AGAIN_MS, FRESH_MS, Recogniser
from accessguard.devices.recognitions import CLAIM, RecognitionStore
from accessguard.devices.refinement import Asked, Refined, Sighting, asked_of, improved, recogniser, refined, restored
from accessguard.guard.facts import from_ms
from accessguard.metrics import REGISTRY
from tests.service import Service, Tenant, items

BOX = "Mozilla/5.0 (Linux; Android 9; AFTKA) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36 {}"
PHONE = (
    "Mozilla/5.0 (Linux; Android 14; SM-S911B) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0"
    " Mobile Safari/537.36 x/{}"
)
FROZEN = "Mozilla/5.0 (Linux; {}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
NEVER = Inquiry("accessguard.nothing_of_the_kind")
PARROT = "tests.devices.parrot"


@pytest.fixture(scope="module")
async def inquiry() -> AsyncIterator[Inquiry]:
    """The real recogniser, started once: it takes seconds."""
    asked = Inquiry()
    yield asked
    await asked.stop()


def worker(service: Service, inquiry: Inquiry = NEVER, *, version: str | None = None, waiting: int = 10) -> Recogniser:
    """One more worker on the same database; a version of its own sees nothing that others were told."""
    store = RecognitionStore(service.context.devices._db, version=version or uuid4().hex)
    return Recogniser(store=store, inquiry=inquiry, now_ms=service.clock, at=from_ms, waiting=waiting)


def count(name: str, **labels: str) -> float:
    """What a counter stands at."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_the_first_answer_is_provisional_and_the_next_one_is_told(service: Service, inquiry: Inquiry):
    """Class and model come with the second look; family, system and label do not move."""
    asker, text = worker(service, inquiry), PHONE.format(uuid4())

    first = await asker.recognise(text)
    await asker.settle()
    second = await asker.recognise(text)

    assert (first.model, second.model) == ("SM-S911B", "Galaxy S23")
    assert (first.label, second.label, same(first, second)) == ("Chrome on Android", "Chrome on Android", True)


async def test_one_worker_tells_all(service: Service, inquiry: Inquiry):
    """What one was told the others read, without a recogniser of their own."""
    version, text = uuid4().hex, BOX.format(uuid4())
    teller, reader = worker(service, inquiry, version=version), worker(service, version=version)
    await teller.recognise(text)
    await teller.settle()

    found = await reader.recognise(text)

    assert (recognise(text).device_class, found.device_class) == (DeviceClass.TV, DeviceClass.TV)
    assert "Fire TV" in (found.model or "")
    assert reader._waiting.empty()


async def test_of_many_workers_one_looks(service: Service, inquiry: Inquiry):
    """A string is claimed before it is told."""
    version, text = uuid4().hex, PHONE.format(uuid4())
    workers = [worker(service, inquiry, version=version) for _ in range(3)]
    before = count("accessguard_refinements_total", result="told")

    await asyncio.gather(*(each.recognise(text) for each in workers))
    for each in workers:
        await each.settle()

    assert count("accessguard_refinements_total", result="told") == before + 1


async def test_two_hundred_at_once_are_one_question(service: Service):
    """They share the look into the database, and the place in the queue."""
    asker, text = worker(service), PHONE.format(uuid4())

    found = await asyncio.gather(*(asker.recognise(text) for _ in range(200)))

    assert {each.device_class for each in found} == {DeviceClass.MOBILE}
    assert asker._waiting.qsize() == 1


async def test_another_version_is_told_anew(service: Service, inquiry: Inquiry):
    """An upgraded recogniser looks again; the release before keeps what it was told."""
    text = PHONE.format(uuid4())
    old, new = worker(service, inquiry, version=uuid4().hex), worker(service, inquiry, version=uuid4().hex)
    await old.recognise(text)
    await old.settle()

    await new.recognise(text)

    assert new._waiting.qsize() == 1


async def test_a_full_queue_drops_and_asks_again(service: Service):
    """The first answer stands, the loss is counted, and the next login asks again."""
    asker, text = worker(service, waiting=1), PHONE.format(uuid4())
    await asker.recognise(PHONE.format(uuid4()))
    before = count("accessguard_refinements_total", result="dropped")

    found = [await asker.recognise(text) for _ in range(2)]

    assert {each.device_class for each in found} == {DeviceClass.MOBILE}
    assert count("accessguard_refinements_total", result="dropped") == before + 2


async def test_a_recogniser_that_dies_leaves_the_first_answer(service: Service, inquiry: Inquiry):
    """It is asked again when its claim is over."""
    version, text = uuid4().hex, PHONE.format(uuid4())
    dying, later = worker(service, NEVER, version=version), worker(service, inquiry, version=version)
    before = count("accessguard_refinements_total", result="failed")

    first = await dying.recognise(text)
    await dying.settle()
    again = await dying.recognise(text)
    service.clock.forward(AGAIN_MS + int(CLAIM.total_seconds() * 1000))
    await later.recognise(text)
    await later.settle()

    assert first == again == recognise(text)
    assert count("accessguard_refinements_total", result="failed") == before + 1
    assert (await later.recognise(text)).model == "Galaxy S23"


async def test_without_postgres_the_first_answer_stands(service: Service, database_url: str):
    """And what was told before stays told; PostgreSQL is not asked by every login."""
    asker, text = worker(service), PHONE.format(uuid4())
    gone = await Database.connect(database_url, size=1)
    await gone.close()
    asker._store = RecognitionStore(gone, version="1")
    before = count("accessguard_recognitions_total", source="provisional")

    found = [await asker.recognise(text) for _ in range(2)]

    assert found == [recognise(text)] * 2
    assert asker._waiting.empty()
    assert count("accessguard_recognitions_total", source="provisional") == before + 2


async def test_what_is_not_used_is_dropped_and_what_is_used_stays(service: Service, inquiry: Inquiry):
    """Use is noted once a day, also by a worker that remembers the answer."""
    asker, used, unused = worker(service, inquiry), PHONE.format(uuid4()), PHONE.format(uuid4())
    for text in (used, unused):
        await asker.recognise(text)
    await asker.settle()
    service.clock.forward(FRESH_MS + 1)
    await asker.recognise(used)

    store, now = asker._store, from_ms(service.clock())
    gone = await store.sweep(now=now, unused=timedelta(hours=1))

    assert gone >= 1
    assert await store.read(asked_of(used, None).key, now=now) is not None
    assert await store.read(asked_of(unused, None).key, now=now) is None


async def test_the_table_is_bounded(service: Service):
    """Beyond its size the longest unused go first, a bounded number at a time."""
    store = RecognitionStore(service.context.devices._db, version=uuid4().hex)
    now, keys = from_ms(service.clock()) + timedelta(days=5_000), [uuid4().bytes * 2 for _ in range(5)]
    for place, key in enumerate(keys):
        await store.claim(key, now=now + timedelta(seconds=place))
        await store.keep(key, Refined(), now=now)

    while await store.sweep(now=now, most=2, limit=2):
        pass

    assert [await store.read(key, now=now) is not None for key in keys] == [False, False, True, True, True]


@pytest.fixture
async def parrot() -> AsyncIterator[Inquiry]:
    """A recogniser that says the same of everything, and so starts at once."""
    asked = Inquiry(PARROT)
    yield asked
    await asked.stop()


async def test_the_process_ends_with_its_input_and_starts_again_when_asked(parrot: Inquiry):
    """It is there only while there is something to ask."""
    asked = Asked(user_agent="curl/8.9.1", hints=())

    first = await parrot.ask(asked)
    await parrot.stop()
    stopped = parrot.running
    second = await parrot.ask(asked)

    assert (stopped, parrot.running) == (False, True)
    assert first == second == Sighting(kind="tv")


async def test_a_process_that_cannot_start_is_an_error_of_its_own():
    """Not of the login that asked."""
    with pytest.raises(InquiryError):
        await NEVER.ask(Asked(user_agent="curl/8.9.1", hints=()))

    assert NEVER.running is False


@pytest.mark.parametrize("turns", range(4))
async def test_a_question_given_up_while_the_process_starts_leaves_none(turns: int):
    """A worker that stops in that moment would else leave a process behind, and its loop could not close."""
    given_up = Inquiry("timeit")
    asking = asyncio.create_task(given_up.ask(Asked(user_agent="curl/8.9.1", hints=())))
    for _ in range(turns):
        await asyncio.sleep(0)

    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)

    assert asking.cancelled()
    assert [each for each in psutil.Process().children() if "timeit" in each.cmdline()] == []


async def test_a_string_that_takes_too_long_is_not_asked_again(parrot: Inquiry):
    """The process is ended, and the next question starts another."""
    asked = Asked(user_agent=PHONE, hints=())
    await parrot.ask(asked)
    parrot._answer_s = 0.0

    told = await parrot.ask(asked)

    assert (told, parrot.running) == (None, False)


async def test_a_login_after_the_second_look_writes_the_class_and_the_model(tenant: Tenant, inquiry: Inquiry):
    """The device is the same one; what operators read of it is better."""
    text, teller = PHONE.format(uuid4()), worker(tenant.service, inquiry, version=recogniser())
    first = await tenant.login(user_agent=text)
    await teller.recognise(text)
    await teller.settle()
    tenant.service.clock.forward(AGAIN_MS)
    (before,) = items(await tenant.see("/v1/members/ana/devices"))

    again = await tenant.login(user_agent=text, device_token=first["device"]["token"])
    (after,) = items(await tenant.see("/v1/members/ana/devices"))

    assert (before["model"], after["model"]) == ("SM-S911B", "Galaxy S23")
    assert (again["device"]["id"], again["device"]["new"]) == (first["device"]["id"], False)


async def test_who_does_not_get_in_makes_nobody_look(tenant: Tenant):
    """A guesser with a new string each time fills neither queue nor table."""
    asker, text = tenant.service.context.logins._recogniser, PHONE.format(uuid4())

    await tenant.login(user_agent=text, outcome="failure")

    assert asked_of(text, None) not in asker._held


@pytest.mark.parametrize(
    ("text", "seen", "mobile", "expected"),
    [
        pytest.param("curl/8.9.1", Sighting(kind="desktop", client="library"), None, None, id="a tool stays one"),
        pytest.param("MyApp/3.2 (iPhone15,2; iOS 17.5)", Sighting(kind="smartphone"), None, None, id="so does an app"),
        pytest.param(
            "Dalvik/2.1.0 (Linux; Android 9; Box)", Sighting(kind="tv", client="browser"), None, "tv", id="a box"
        ),
        pytest.param(
            "Safari/1 CFNetwork/1 Darwin/1",
            Sighting(kind="desktop", client="browser"),
            None,
            "desktop",
            id="a browser's helper",
        ),
        pytest.param(PHONE, Sighting(kind="tablet"), True, None, id="a hint wins"),
        pytest.param(PHONE, Sighting(kind="tablet", model="Tab 5"), True, "tablet", id="a model knows better"),
        pytest.param(PHONE, Sighting(kind="tablet"), None, "tablet", id="no hint"),
        pytest.param(PHONE, Sighting(bot="Somebot", kind="smartphone"), True, "bot", id="a bot as a phone"),
        pytest.param(PHONE, Sighting(kind="wearable"), None, "unknown", id="a watch"),
        pytest.param(PHONE, Sighting(), None, None, id="nothing to say"),
        pytest.param(
            FROZEN.format("Android 9; X9 Box"),
            Sighting(kind="tablet", model="X9 Box"),
            False,
            None,
            id="a box is no tablet",
        ),
    ],
)
def test_the_second_look_is_weighed_against_the_first(text, seen, mobile, expected):
    """Hints and programs have the last word, then device-detector."""
    told = refined(recognise(text), seen, mobile=mobile)

    assert told.device_class == expected


@pytest.mark.parametrize(
    ("text", "hints", "expected"),
    [
        pytest.param("(Linux; Android 10; K)", {"model": "Acme 1"}, "(Linux; Android 10; Acme 1)", id="frozen"),
        pytest.param(
            "(Linux; Android 10; K; wv)",
            {"model": "Acme 1", "platform": "Android", "platform-version": "14.0.0"},
            "(Linux; Android 14; Acme 1; wv)",
            id="with its version",
        ),
        pytest.param("(Linux; Android 13)", {"model": "Acme 1"}, "(Linux; Android 10; Acme 1)", id="no model at all"),
        pytest.param(
            "(X11; Linux x86_64)", {"model": "Acme 1"}, "(X11; Linux x86_64; Acme 1)", id="asks for desktop pages"
        ),
        pytest.param(
            "(Linux; Android 14; Acme 1)", {"model": "Acme 1"}, "(Linux; Android 14; Acme 1)", id="said before"
        ),
        pytest.param("(Linux; Android 14; Acme 1)", {"model": "Two"}, "(Linux; Android 14; Acme 1)", id="not frozen"),
        pytest.param("(Linux; Android 10; K)", {"model": ""}, "(Linux; Android 10; K)", id="no model hinted"),
        pytest.param(
            "(Linux; Android 10; K)", {"model": r"A\1);(B"}, r"(Linux; Android 10; A\1 B)", id="a hostile model"
        ),
    ],
)
def test_a_frozen_string_is_asked_about_with_the_model_that_the_hints_tell(text, hints, expected):
    """Tables of models know strings and no hints."""
    sent = {f"Sec-CH-UA-{name}": value for name, value in hints.items()}

    assert restored(asked_of(text, sent)) == expected


async def test_a_hinted_model_is_looked_up(service: Service, inquiry: Inquiry):
    """A tablet whose browser claims to be a phone is known by its model."""
    asker, hints = worker(service, inquiry), {"Sec-CH-UA-Model": '"SM-X710"', "Sec-CH-UA-Mobile": "?1"}
    text = FROZEN.format("Android 10; K") + f" x/{uuid4()}"

    first = await asker.recognise(text, hints)
    await asker.settle()
    second = await asker.recognise(text, hints)

    assert (first.device_class, second.device_class) == (DeviceClass.MOBILE, DeviceClass.TABLET)
    assert (second.model or "").startswith("Galaxy Tab S9")


def test_a_bot_is_called_by_its_name():
    """Whatever browser it claims to be; its families stay as they are."""
    first = recognise(PHONE)

    found = improved(first, Refined(device_class=DeviceClass.BOT, name="Somebot"))

    assert (found.label, found.device_class, found.model) == ("Somebot", DeviceClass.BOT, None)
    assert same(first, found)


def test_two_hints_in_another_order_are_one_question():
    """And other headers are none."""
    one = {"Sec-CH-UA-Model": '"Pixel 8"', "sec-ch-ua-mobile": "?1"}
    other = {"SEC-CH-UA-MOBILE": "?1", "accept": "x", "sec-ch-ua-model": '"Pixel 8"'}

    assert asked_of("x", one).key == asked_of("x", other).key != asked_of("x", None).key
