"""The page that explains a refusal: to its student, in the school's colours, as HTML without script and as JSON."""

from __future__ import annotations

import asyncio
import re
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import msgspec
import pytest

from accessguard.guard.model import Verdict
from accessguard.guard.refused import RefusedPages
from accessguard.rules.model import Code, Outcome
from accessguard.signing import SigningKey
from accessguard.words.catalogues import say
from accessguard.words.languages import LANGUAGES
from accessguard.words.page import NATIVE, TITLES
from tests.service import CHROME, FIREFOX, LAPTOP, Answer, Tenant, items

SWAPS = {"max": 1, "window_days": 30}
HOUR_MS = 3_600_000
HOSTILE = "</textarea><script>alert(1)</script> \u202e\u05e9\u05dc\u05d5\u05dd \U0001f469\u200d\U0001f393\r\nI am Ana"


def token_of(refusal: Answer) -> str:
    """The token in the page's address."""
    url = urlsplit(refusal["reason"]["page_url"])
    assert (url.scheme, url.netloc, url.path) == ("https", "guard.example", "/restricted")
    return str(parse_qs(url.query)["t"][0])


async def look(tenant: Tenant, token: str, **more: Any) -> Answer:
    """The page as JSON."""
    return await call(tenant, "GET", "/restricted", params={"t": token} | more, headers={"Accept": "application/json"})


async def call(tenant: Tenant, method: str, path: str, **more: Any) -> Answer:
    """A call of somebody without a token of the API's."""
    http, url = tenant.service.http, tenant.service.url
    async with http.request(method, url + path, allow_redirects=False, **more) as answer:
        raw = await answer.read()
        parsed = await answer.json(content_type=None) if "json" in answer.content_type else raw.decode()
        return Answer(answer.status, parsed, dict(answer.headers))


async def limited(tenant: Tenant) -> tuple[Answer, Answer]:
    """A login that is in, and a second one that is challenged because one may be."""
    await tenant.rule("device_limit", "challenge", max=1, swaps=SWAPS)
    first, second = await tenant.login(), await tenant.login(user_agent=FIREFOX)
    assert second["decision"] == "challenge", second.body
    return first, second


async def test_a_student_removes_a_device_once_and_logs_in_anew(tenant: Tenant):
    """What counts is shown; the freed place lets the next login in; asked for again nothing more happens; the budget is spent."""
    first, second = await limited(tenant)
    token = token_of(second)
    before = await look(tenant, token)
    device = first["device"]["id"]

    freed = await call(tenant, "POST", "/restricted/place", json={"t": token, "forget_device_id": device})
    again = await call(tenant, "POST", "/restricted/place", json={"t": token, "forget_device_id": device})
    third = await tenant.login(user_agent=FIREFOX)
    fourth = await tenant.login(
        user_agent=CHROME.format(142).replace("Windows NT 10.0; Win64; x64", "X11; Linux x86_64")
    )

    place = before["places"][0]
    assert (place["kind"], place["id"], place["closable"], before["swaps_left"]) == ("device", device, True, 1)
    assert (freed.status, freed["freed"], freed["next"]) == (200, True, "sign_in")
    assert freed["freed_label"] == place["label"] == "Chrome on Windows"
    assert (again.status, again["freed"]) == (200, True)
    assert (await tenant.check(first))["reason"]["code"] == "session_ended"
    assert third["decision"] == "allow"
    assert fourth["decision"] == "challenge"
    spent = await look(tenant, token_of(fourth))
    assert (spent["swaps_left"], [each["closable"] for each in spent["places"]]) == (0, [False])
    refused = await call(
        tenant, "POST", "/restricted/place", json={"t": token_of(fourth), "forget_device_id": third["device"]["id"]}
    )
    assert refused.status == 409


async def test_a_session_that_is_challenged_goes_on_once_another_one_is_closed(tenant: Tenant):
    """By the page's own form, without script; the other one learns that the member closed it."""
    first, second = await tenant.login(), await tenant.login(user_agent=FIREFOX)
    await tenant.rule("session_limit", "challenge", max=1, swaps=SWAPS)
    challenged = await tenant.check(second, user_agent=FIREFOX)
    assert challenged["decision"] == "challenge", challenged.body
    token = token_of(challenged)
    page = await call(tenant, "GET", "/restricted", params={"t": token})
    values = {unescape(each) for each in re.findall(r'name="place" value="([^"]+)"', page.body)}

    sent = await call(
        tenant, "POST", "/restricted/place", data={"t": token, "place": f"session:{first['session']['id']}"}
    )
    after = await call(tenant, "GET", "/restricted", params={"t": token, "done": "freed"})

    assert values == {f"session:{first['session']['id']}"}
    assert (sent.status, sent.headers["Location"].startswith("../restricted?t=")) == (303, True)
    assert "Signed out: Chrome · Windows" in after.body
    assert "Now go back to your course" in after.body
    assert (await tenant.check(second, user_agent=FIREFOX))["decision"] == "allow"
    ended = await tenant.check(first)
    assert (ended["reason"]["code"], ended["reason"]["end_reason"]) == ("session_ended", "freed_by_member")


async def test_words_to_support_are_kept_as_text_with_the_case_three_times_at_most(tenant: Tenant):
    """Nothing of them is markup anywhere; operators read them on the case; who may not write is told so."""
    _, second = await limited(tenant)
    token = token_of(second)
    written = []
    for text in ("   ", HOSTILE, "second", "third", "fourth"):
        sent = await call(tenant, "POST", "/restricted/words", data={"t": token, "text": text})
        written.append((sent.status, parse_qs(urlsplit(sent.headers["Location"]).query)["done"][0]))

    page = await call(tenant, "GET", "/restricted", params={"t": token})
    case = next(items(await tenant.see("/v1/violations")))

    assert written == [(303, each) for each in ("empty", "written", "written", "written", "late")]
    assert [each["text"] for each in case["student_words"]][1:] == ["second", "third"]
    kept = case["student_words"][0]["text"]
    assert "\u202e" not in kept and "\n" not in kept and "\U0001f469\u200d\U0001f393" in kept  # noqa: PT018 - one text
    assert "<script" not in page.body and "&lt;script&gt;" in page.body  # noqa: PT018 - one text
    assert (await call(tenant, "POST", "/restricted/words", json={"t": token, "text": "x" * 501})).status == 400
    assert (await call(tenant, "POST", "/restricted/words", json={"t": token, "text": "more"})).status == 409


async def test_a_token_that_is_over_forged_or_of_nobody_gets_one_friendly_page(tenant: Tenant):
    """The same bytes for each, in the reader's language, and no word of any school."""
    _, second = await limited(tenant)
    token = token_of(second)
    foreign = RefusedPages((SigningKey(id="s1", secret="x" * 40),), "https://guard.example")
    other = (foreign.url(tenant.name, Verdict(outcome=Outcome.DENY, session_id="a", code=Code.IP_DENIED), 0) or "")[
        -300:
    ]
    changed = token[:-3] + ("A" if token[-3] != "A" else "B") + token[-2:]
    asked = [changed, other, "", "v1.s1.e.e", "é" * 10, token * 20]

    found = [await call(tenant, "GET", "/restricted", params={"t": each, "lang": "it"}) for each in asked]
    held = await look(tenant, token)
    tenant.service.clock.forward(HOUR_MS)
    found.append(await call(tenant, "GET", "/restricted", params={"t": token, "lang": "it"}))
    sent = await call(tenant, "POST", "/restricted/words", data={"t": token, "text": "late"})

    assert held.status == 200
    assert {each.status for each in found} == {404}
    assert len({each.body for each in found}) == 1
    assert "Questa pagina non è più valida" in found[0].body
    assert tenant.name not in found[0].body
    assert sent.status == 404
    assert (await look(tenant, token)).status == 404


async def test_the_page_wears_the_school_and_lets_nothing_else_in(tenant: Tenant):
    """Colours that can be read, the logo's origin alone, no script, nothing kept, framed by nobody, small."""
    brand = {"color_one": "#ffee00", "logo_url": "https://cdn.school.example/a.svg", "copyright": "<b>Scuola</b>"}
    settings = {"name": "<i>Scuola", "support_email": "help@school.example", "brand": brand, "languages": ["it", "ru"]}
    assert (await tenant.call("PUT", "/v1/settings", settings, role="administrator")).status == 200
    _, second = await limited(tenant)
    token = token_of(second)

    page = await call(tenant, "GET", "/restricted", params={"t": token})
    russian = await call(tenant, "GET", "/restricted", params={"t": token, "lang": "ru"})
    english = await look(tenant, token, lang="en")

    policy = page.headers["Content-Security-Policy"]
    assert "img-src 'self' https://cdn.school.example;" in policy
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy  # noqa: PT018 - one header
    assert "script-src" not in policy and "unsafe" not in policy  # noqa: PT018 - one header
    said = [page.headers[name] for name in ("Referrer-Policy", "Cache-Control", "X-Robots-Tag")]
    assert said == ["no-referrer", "no-store", "noindex, nofollow"]
    assert "<i>" not in page.body and "&lt;i&gt;Scuola" in page.body  # noqa: PT018 - one page
    assert "#ffee00" not in page.body.partition("@media")[0].replace("dark", "")
    assert not re.search(r"<script|\son[a-z]+=|\sstyle=|javascript:", page.body)
    assert (page.body.count('lang="it"') > 0, '<html lang="ru">' in russian.body) == (True, True)
    assert (english["language"], english["support_email"]) == ("it", "help@school.example")
    assert len(page.body.encode()) < 30_000


async def test_a_token_says_nothing_to_who_reads_it_and_both_lanes_give_it(tenant: Tenant):
    """No id of anybody is in it; a decided refusal, a held one, one of a batch and a login's all lead to a page."""
    member = "ana@example.com/\u05e9%2F\U0001f469"
    await tenant.login(member, session_id="sitzung-1")
    await tenant.rule("ip_deny", networks=[LAPTOP])
    tenant.service.clock.stop()
    urls = [(await tenant.check("sitzung-1"))["reason"]["page_url"] for _ in range(3)]
    asked = {"session_id": "sitzung-1", "ip": LAPTOP, "user_agent": CHROME.format(142)}
    batch = await tenant.call("POST", "/v1/checks", {"checks": [asked]})
    login = await tenant.login(member)

    assert {*urls, batch["results"][0]["reason"]["page_url"]} == {urls[0]}
    assert all(each not in urls[0] for each in ("ana", "sitzung", tenant.name))
    found = await look(tenant, parse_qs(urlsplit(urls[0]).query)["t"][0])
    assert (found["code"], found["may_write"]) == ("ip_denied", True)
    assert (await look(tenant, token_of(login)))["code"] == "ip_denied"


async def test_another_student_s_challenge_and_case_cannot_be_touched(tenant: Tenant):
    """A token that names somebody else's challenge and case finds neither."""
    _, second = await limited(tenant)
    pages, now_ms = tenant.service.context.pages, tenant.service.context.now_ms()
    said = pages.read(token_of(second), now_ms)
    assert said is not None
    bruno = msgspec.structs.replace(said.verdict(None), member_id="bruno")
    token = (pages.url(tenant.name, bruno, now_ms) or "").partition("t=")[2]

    found = await look(tenant, token)
    freed = await call(
        tenant,
        "POST",
        "/restricted/place",
        json={"t": token, "forget_device_id": found["places"][0]["id"] if found["places"] else str(uuid4())},
    )
    written = await call(tenant, "POST", "/restricted/words", json={"t": token, "text": "I am not Ana"})

    assert (found["places"], found["may_write"]) == ([], False)
    assert (freed.status, written.status) == (404, 409)


@pytest.mark.parametrize("code", list(Code))
def test_every_code_has_its_words_on_the_page_in_every_language(code: Code):
    """A title in each of the six."""
    titles = {say(language, TITLES[code]) for language in LANGUAGES}

    assert len(titles) == len(LANGUAGES) == len(NATIVE)


async def test_a_form_of_another_site_is_refused(tenant: Tenant):
    """Even with the token, which no other site knows."""
    _, second = await limited(tenant)

    sent = await call(
        tenant,
        "POST",
        "/restricted/words",
        data={"t": token_of(second), "text": "from elsewhere"},
        headers={"Sec-Fetch-Site": "cross-site"},
    )

    assert sent.status == 403
    assert (await look(tenant, token_of(second)))["written"] == []


@pytest.mark.parametrize("charset", ["none-such", "base64", "unicode_escape"])
async def test_a_form_in_a_codec_that_says_no_text_is_refused_politely(tenant: Tenant, charset: str):
    """One that is none, one of bytes, one that makes what UTF-8 cannot say; on the console's way in as well."""
    kind = {"Content-Type": f"application/x-www-form-urlencoded; charset={charset}"}

    sent = await call(tenant, "POST", "/restricted/words", data=b"t=x&text=\\ud800", headers=kind)
    entered = await call(tenant, "POST", "/console/sign-in", data=b"token=\\ud800", headers=kind)

    assert [(each.status, "<h1>" in each.body) for each in (sent, entered)] == [(400, True)] * 2


async def test_a_form_of_too_many_fields_is_refused_with_a_page(tenant: Tenant):
    """Though it has not too many bytes."""
    sent = await call(tenant, "POST", "/restricted/words", data=[("a", "1")] * 8_000)

    assert (sent.status, sent.headers["Content-Type"]) == (413, "text/html; charset=utf-8")


async def test_who_looks_at_a_link_before_people_do_is_told_that_it_works(tenant: Tenant):
    """A mail filter asks for the head alone, and gets that of the page."""
    _, second = await limited(tenant)

    found = await call(tenant, "HEAD", "/restricted", params={"t": token_of(second)})
    over = await call(tenant, "HEAD", "/restricted", params={"t": "x"})

    assert (found.status, over.status) == (200, 404)
    assert found.headers["Cache-Control"] == "no-store"


async def test_a_place_that_is_asked_for_many_times_at_once_is_freed_once(tenant: Tenant):
    """Whoever presses twice is told both times that it is free."""
    first, second = await limited(tenant)
    said = {"t": token_of(second), "forget_device_id": first["device"]["id"]}

    async def pressed() -> Answer:
        answer = await call(tenant, "POST", "/restricted/place", json=said)
        # A machine that stood still for seconds is told as an outage: whoever is told so presses again.
        return answer if answer.status != 503 else await call(tenant, "POST", "/restricted/place", json=said)

    answers = await asyncio.gather(*[pressed() for _ in range(10)])

    assert [(each.status, each.body.get("freed")) for each in answers] == [(200, True)] * 10
