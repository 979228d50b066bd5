"""The language of a refusal, over HTTP."""

from typing import Any

import pytest

from tests.service import CHROME, FIREFOX, Answer, Tenant, items, token


async def refused(tenant: Tenant, language: str | None = None) -> dict[str, Any]:
    """Why a second device is refused, told to somebody whose browser accepts `language`."""
    await tenant.rule("device_limit", max=1)
    await tenant.login(user_agent=CHROME.format(142))
    headers = {} if language is None else {"Accept-Language": language}
    asked = {"member_id": "ana", "outcome": "success", "ip": "203.0.113.9", "user_agent": FIREFOX}
    answer = await tenant.call("POST", "/v1/logins", asked, headers=headers)
    assert answer["decision"] == "deny"
    reason: dict[str, Any] = answer["reason"]
    return reason


async def settings(tenant: Tenant, **fields: Any) -> Answer:
    """Settings of the tenant."""
    saved = await tenant.call("PUT", "/v1/settings", fields, role="administrator")
    assert saved.status == 200, saved.body
    return saved


def own(state: str, text: str) -> dict[str, Any]:
    """A school's own text about devices, in Italian."""
    return {"device_limit": {"it": {"text": text, "state": state}}}


async def test_a_refusal_is_in_english_when_nobody_says_otherwise(tenant):
    """No locale, no header, no languages of the school's."""
    reason = await refused(tenant)

    assert reason["language"] == "en"
    assert reason["message"].startswith("Your account can be used on 1 device.")


async def test_a_refusal_follows_what_the_browser_accepts(tenant):
    """The platform passes the student's header on."""
    reason = await refused(tenant, "de, uk;q=0.4, pt-PT;q=0.9")

    assert reason["language"] == "pt-BR"
    assert reason["message"].startswith("A sua conta pode ser usada em 1 dispositivo.")


async def test_the_locale_of_the_member_comes_before_the_header(tenant):
    """What the platform knows of the student is more than what a borrowed browser says."""
    await tenant.call("PUT", "/v1/members/ana", {"locale": "ru-RU"})

    reason = await refused(tenant, "it")

    assert reason["language"] == "ru"
    assert reason["message"].startswith("Ваш аккаунт можно использовать на 1 устройстве.")


async def test_a_school_speaks_its_own_languages_only(tenant):
    """What the school does not speak is answered in its first language."""
    await settings(tenant, languages=["es", "it"])

    assert (await refused(tenant, "ru"))["language"] == "es"


async def test_an_enabled_text_of_the_school_wins_over_the_usual_words(tenant):
    """With its placeholders filled in."""
    text = "Massimo {limit}, ora {counted}. Scriva a {support_email}."
    await settings(tenant, support_email="help@school.example", messages=own("enabled", text))

    reason = await refused(tenant, "it")

    assert reason["message"] == "Massimo 1, ora 2. Scriva a help@school.example."
    assert reason["language"] == "it"


async def test_a_draft_is_not_shown(tenant):
    """A text is written first and enabled later."""
    await settings(tenant, messages=own("draft", "Non ancora."))

    assert (await refused(tenant, "it"))["message"].startswith("Il Suo account")


async def test_a_text_that_names_what_there_is_not_gives_way_to_the_usual_words(tenant):
    """A school without a support address shows no sentence with a hole in it."""
    await settings(tenant, messages=own("enabled", "Scriva a {support_email}."))

    assert (await refused(tenant, "it"))["message"].startswith("Il Suo account")


async def test_the_text_of_a_rule_wins_as_it_is(tenant):
    """It is the operator's word, braces and all, in a language that nobody said."""
    rule = {"kind": "ip_deny", "mode": "enforce", "params": {"networks": ["203.0.113.0/24"]}, "message": "Go {home}."}
    await tenant.call("POST", "/v1/rules", rule, role="administrator")

    reason = (await tenant.login())["reason"]

    assert (reason["message"], reason["language"]) == ("Go {home}.", "und")


async def test_a_check_speaks_the_language_of_the_member(tenant):
    """A check's refusal, which is held in memory, as much as a login's."""
    await tenant.call("PUT", "/v1/members/ana", {"locale": "uk"})
    opened = await tenant.login()
    await tenant.call("POST", f"/v1/sessions/{opened['session']['id']}/end", {"reason": "password_changed"})

    reason = (await tenant.check(opened))["reason"]

    assert reason["language"] == "uk"
    assert reason["message"].startswith("Ваш пароль було змінено")


async def test_a_rule_is_summed_up_in_the_language_of_the_operator(tenant):
    """And can be sent back as it was read."""
    made = await tenant.rule("device_limit", max=2)

    path = f"/v1/rules/{made['id']}"
    read = await tenant.call("GET", path, role="administrator", headers={"Accept-Language": "it"})
    listed = await tenant.call("GET", "/v1/rules", role="administrator")
    saved = await tenant.call("PUT", path, read.body, role="administrator")

    assert read["summary"] == "Al massimo 2 dispositivi in 30 giorni; oltre, l'accesso è rifiutato."
    assert [each["summary"] for each in items(listed)] == [
        "At most 2 devices within 30 days; beyond that, access is refused."
    ]
    assert saved.status == 200, saved.body


@pytest.mark.parametrize("lane", ["url", "plain_url"])
async def test_a_check_follows_what_the_browser_accepts(tenant, lane):
    """In either lane, again and again from memory, and in another language as soon as one is asked for."""
    opened = await tenant.login()
    await tenant.rule("ip_deny", networks=["203.0.113.0/24"])
    asked = {"session_id": opened["session"]["id"], "ip": "203.0.113.9", "user_agent": CHROME.format(142)}
    url = getattr(tenant.service, lane) + "/v1/check"
    spoken = []

    for language in ("it", "it", "es", "it", "ru;q=0, uk"):
        headers = {"Authorization": f"Bearer {token(tenant.name, 'platform')}", "Accept-Language": language}
        async with tenant.service.http.post(url, json=asked, headers=headers) as response:
            spoken.append((await response.json())["reason"]["language"])

    assert spoken == ["it", "it", "es", "it", "uk"]


async def test_a_case_is_summed_up_in_the_language_of_the_operator(tenant):
    """Over all members, in the member's own history, and as the answer to a resolution."""
    await tenant.rule("device_limit", "deny_new", max=1)
    await tenant.login()
    await tenant.login(user_agent=FIREFOX)

    (case,) = items(await tenant.call("GET", "/v1/violations", role="supervisor", headers={"Accept-Language": "it"}))
    (own,) = items(await tenant.see("/v1/members/ana/violations"))

    assert case["summary"] != own["summary"]
    assert (own["summary"], own["details"]["counted"]) == ("2 devices in use, 1 allowed", 2)
