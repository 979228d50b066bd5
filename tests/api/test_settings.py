"""What a school decides of its logs, its languages and its texts, and what is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from accessguard.policies.store import settings_of
from tests.service import Answer, Tenant

TEXT = "Você já usa {limit} aparelhos. Escreva para {support_email}."


async def save(tenant: Tenant, **settings: Any) -> Answer:
    """An administrator saves the settings."""
    return await tenant.call("PUT", "/v1/settings", settings, role="administrator")


async def test_settings_are_kept_as_they_were_saved(tenant: Tenant):
    """Retention, languages, texts, the budget of passes."""
    await tenant.login()
    asked = {
        "retention": {"logins_days": 180, "activity_days": 200, "violations_days": 365, "truncate_ip_after_days": 30},
        "languages": ["pt-BR", "en"],
        "messages": {"device_limit": {"pt-BR": {"text": TEXT, "state": "enabled"}}},
        "passes_per_month": 2,
    }

    saved = await save(tenant, **asked)
    read = await tenant.call("GET", "/v1/settings", role="administrator")

    assert saved.status == 200
    assert {name: read[name] for name in asked} == asked


async def test_the_defaults_are_a_year_every_language_and_no_texts(tenant: Tenant):
    """What holds for a tenant that never chose."""
    await tenant.login()

    read = await tenant.call("GET", "/v1/settings", role="administrator")

    assert set(read["retention"].values()) == {365, None}
    assert (read["languages"], read["messages"], read["passes_per_month"]) == ([], {}, 0)


@pytest.mark.parametrize(
    ("settings", "pointer"),
    [
        pytest.param({"retention": {"logins_days": 0}}, "/retention/logins_days", id="nothing kept"),
        pytest.param({"retention": {"logins_days": 1097}}, "/retention/logins_days", id="over three years"),
        pytest.param({"languages": ["xx"]}, "/languages/0", id="no such language"),
        pytest.param({"messages": {"gone": {}}}, "/messages", id="no such code"),
        pytest.param({"messages": {"device_limit": {"xx": {"text": "a"}}}}, "/messages", id="no such language of a text"),
        pytest.param(
            {"messages": {"device_limit": {"en": {"text": "{name}"}}}},
            "/messages/device_limit/en/text",
            id="no such placeholder",
        ),
        pytest.param(
            {"messages": {"device_limit": {"en": {"text": "{limit"}}}}, "/messages/device_limit/en/text", id="open brace"
        ),
        pytest.param(
            {"messages": {"device_limit": {"en": {"text": "  "}}}}, "/messages/device_limit/en/text", id="no text"
        ),
        pytest.param({"passes_per_month": -1}, "/passes_per_month", id="fewer than none"),
    ],
)  # fmt: skip
async def test_settings_that_make_no_sense_are_refused(tenant: Tenant, settings, pointer):
    """A draft too: it will be enabled one day."""
    await tenant.login()

    refused = await save(tenant, **settings)

    assert (refused.status, refused["errors"][0]["pointer"]) == (400, pointer)


@pytest.mark.parametrize(
    ("kind", "params", "pointer"),
    [
        pytest.param("device_limit", {"max": 2, "window_days": 31}, "/params/window_days", id="devices"),
        pytest.param("session_limit", {"max": 2, "window_s": 60 * 86400 + 1}, "/params/window_s", id="sessions"),
    ],
)
async def test_a_rule_cannot_look_back_further_than_is_kept(tenant: Tenant, kind, params, pointer):
    """Neither a new one, nor one that is widened, nor one that is off."""
    await tenant.login()
    await save(tenant, retention={"logins_days": 30, "activity_days": 60})
    path = f"/v1/rules/{(await tenant.rule(kind, mode='observe', max=2))['id']}"

    refused = [
        await tenant.rule(kind, mode="observe", **params),
        await tenant.rule(kind, mode="off", **params),
        await tenant.call("PUT", path, {"kind": kind, "params": params}, role="administrator"),
    ]

    assert [each.status for each in refused] == [400] * 3
    assert {each["errors"][0]["pointer"] for each in refused} == {pointer}
    assert "settings.retention" in refused[0]["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        pytest.param("device_limit", {"max": 2, "window_days": 30}, id="as far back as is kept"),
        pytest.param("device_limit", {"max": 2, "window_days": None}, id="for ever: devices are kept for ever"),
        pytest.param("session_limit", {"max": 2, "window_s": 60 * 86400}, id="sessions, by activity"),
        pytest.param("ip_deny", {"networks": ["192.0.2.0/24"]}, id="not at all"),
    ],
)
async def test_a_rule_may_look_back_as_far_as_is_kept(tenant: Tenant, kind, params):
    """To the day."""
    await tenant.login()
    await save(tenant, retention={"logins_days": 30, "activity_days": 60})

    assert (await tenant.rule(kind, mode="observe", **params)).status == 201


async def test_retention_cannot_fall_below_what_a_rule_looks_back(tenant: Tenant):
    """The refusal names the rule; once that is gone, it is taken."""
    await tenant.login()
    made = await tenant.rule("device_limit", mode="off", max=2, window_days=90)
    retention = {"retention": {"logins_days": 89}}

    refused = await save(tenant, **retention)
    await tenant.call("DELETE", f"/v1/rules/{made['id']}", role="administrator")
    taken = await save(tenant, **retention)

    (problem,) = refused["errors"]
    assert (refused.status, problem["pointer"]) == (400, "/retention/logins_days")
    assert made["id"] in problem["detail"]
    assert taken.status == 200


def test_settings_of_another_release_are_read_as_far_as_they_are_known():
    """Codes, languages and fields that this one does not know are left out; nothing stops it."""
    wording = {"text": "x", "state": "enabled", "color": "red"}
    stored = {
        "languages": ["en", "fr"],
        "messages": {"device_limit": {"en": wording, "fr": wording}, "new_code": {"en": wording}},
        "retention": {"logins_days": 30, "other_days": 1},
        "unknown": 1,
    }

    found = settings_of(msgspec.Raw(msgspec.json.encode(stored)))

    assert found.languages == ("en",)
    assert {code: set(texts) for code, texts in found.messages.items()} == {"device_limit": {"en"}}
    assert found.retention.logins_days == 30


async def test_a_rule_that_contradicts_another_is_refused_and_told_which(tenant: Tenant):
    """Both enforced; saved again under its own id, a rule does not contradict itself."""
    await tenant.login()
    made = await tenant.rule("ip_allow_only", networks=["203.0.113.0/24", "127.0.0.0/8"])
    everywhere: dict[str, Any] = {"networks": ["203.0.113.0/24", "127.0.0.0/8"]}

    observed = await tenant.rule("ip_deny", mode="observe", **everywhere)
    body = {"kind": "ip_deny", "mode": "enforce", "params": everywhere, "confirm_lockout": True}
    refused = await tenant.call("POST", "/v1/rules", body, role="administrator")
    again = {"kind": "ip_allow_only", "mode": "enforce", "params": {"networks": ["203.0.113.0/24", "127.0.0.0/8"]}}
    kept = await tenant.call("PUT", f"/v1/rules/{made['id']}", again, role="administrator")

    assert (made.status, observed.status, kept.status) == (201, 201, 200)
    assert (refused.status, refused["errors"][0]["pointer"]) == (409, "/params")
    assert made["id"] in refused["errors"][0]["detail"]
