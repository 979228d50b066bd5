"""One action on many members, over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

from accessguard.members.redacting import Redaction
from accessguard.rules.model import Code
from tests.members.test_imports import enrolment, imported, member
from tests.service import Answer, Tenant


async def asked(tenant: Tenant, role: str = "administrator", subject: str = "olga", **fields) -> Answer:
    """The answer to one call."""
    return await tenant.call("POST", "/v1/members/bulk", fields, role=role, subject=subject)


async def done(tenant: Tenant, answer: Answer) -> Any:
    """What came of a job."""
    while True:
        job = await tenant.call("GET", f"/v1/jobs/{answer['id']}", role="administrator")
        if job["state"] in {"done", "failed"}:
            assert job["state"] == "done", job.body
            return job["result"]
        await asyncio.sleep(0.01)


async def test_tags_are_given_and_taken_by_a_filter(tenant):
    """Whoever the list of members shows; who has the tag already is not touched, and each change is in the audit log."""
    await imported(tenant, member("ana", name="Rossi"), member("bea", name="Rossi", tags=["vip"]), member("cia"))

    given = await done(
        tenant, await asked(tenant, action="tag", filter={"q": "rossi"}, tags=["vip", "new"], reason="x")
    )
    taken = await done(tenant, await asked(tenant, action="untag", ids=["bea", "nobody"], tags=["vip"]))
    again = await done(tenant, await asked(tenant, action="tag", filter={"q": "rossi"}, tags=["new"]))

    found = {each["member_id"]: each["tags"] for each in (await tenant.see("/v1/members"))["items"]}
    audit = (await tenant.call("GET", "/v1/audit", role="administrator"))["items"]
    assert found == {"ana": ["vip", "new"], "bea": ["new"], "cia": []}
    assert [given, taken, again] == [
        {"members": 2, "changed": 2},
        {"members": 1, "changed": 1},
        {"members": 2, "changed": 0},
    ]
    assert [(each["action"], each["after"]) for each in audit if each["reason"] == "x"] == [
        ("bulk.tag", {"members": 2, "changed": 2}),
        ("member.tag", {"tags": ["vip", "new"]}),
        ("member.tag", {"tags": ["vip", "new"]}),
    ]


async def test_checks_are_switched_off_and_on(tenant):
    """A held refusal is one no longer, and comes back."""
    await tenant.rule("ip_deny", "deny", networks=["203.0.113.9"])
    session = await tenant.login("ana", ip="198.51.100.1")
    before = await tenant.check(session)

    await done(tenant, await asked(tenant, role="supervisor", action="exempt", ids=["ana"], reason="exam"))
    during = await tenant.check(session)
    await done(tenant, await asked(tenant, role="supervisor", action="unexempt", ids=["ana"]))
    after = await tenant.check(session)

    assert [each["decision"] for each in (before, during, after)] == ["deny", "allow", "deny"]


async def test_what_cannot_be_undone_is_asked_twice(tenant, service):
    """The first call does nothing; the second one does it to whom the first one named, and to nobody who came later."""
    await imported(tenant, enrolment("ana"))
    session = await tenant.login("ana")
    order: dict[str, Any] = {"action": "end_sessions", "filter": {"q": "a"}, "reason": "leak"}
    preview = await asked(tenant, **order)
    still = await tenant.check(session)
    later = await tenant.login("ada")

    job = await asked(tenant, **order, confirmation=preview["confirmation"])
    result = await done(tenant, job)
    barred = service.context.changes.bars.here(tenant.name, session["session"]["id"])
    again = await asked(tenant, **order, confirmation=preview["confirmation"])

    assert (preview.status, preview["members"], preview["examples"]) == (200, 1, ["ana"])
    assert barred is Code.SESSION_ENDED, "a worker that cannot ask PostgreSQL would let it in"
    assert still["decision"] == "allow"
    assert (job.status, result) == (202, {"members": 1, "changed": 1})
    assert (await tenant.check(session))["reason"]["code"] == "session_ended"
    assert (await tenant.check(later))["decision"] == "allow"
    assert again["id"] == job["id"]


async def test_a_confirmation_is_good_for_what_it_was_given_for(tenant, service):
    """Not for another operator, tenant, action or selection, and not for ever."""
    await imported(tenant, enrolment("ana"), enrolment("bea"))
    other = service.tenant()
    await imported(other, enrolment("ana"))
    order: dict[str, Any] = {"action": "deactivate", "ids": ["ana"]}
    token = (await asked(tenant, **order))["confirmation"]

    refused = [
        await asked(tenant, **order, confirmation=token, subject="ivan"),
        await asked(other, **order, confirmation=token),
        await asked(tenant, **order | {"ids": ["ana", "bea"]}, confirmation=token),
        await asked(tenant, **order, product_id="course", confirmation=token),
        await asked(tenant, action="end_sessions", ids=["ana"], confirmation=token),
        await asked(tenant, **order, confirmation=token[:-2] + "xx"),
    ]
    service.clock.forward(301_000)
    refused.append(await asked(tenant, **order, confirmation=token))

    card = await tenant.see("/v1/members/ana")
    assert [each.status for each in refused] == [400] * 7
    assert {each["errors"][0]["pointer"] for each in refused} == {"/confirmation"}
    assert card["status"] == "active"


async def test_enrolments_are_deactivated_with_their_history(tenant):
    """Of one product, by an administrator alone."""
    await imported(tenant, enrolment("ana", "a"), enrolment("ana", "b"), enrolment("bea", "b"))
    order: dict[str, Any] = {
        "action": "deactivate",
        "filter": {"product_id": "a"},
        "product_id": "a",
        "reason": "refund",
    }
    forbidden = await asked(tenant, role="supervisor", **order)
    preview = await asked(tenant, **order)

    result = await done(tenant, await asked(tenant, **order, confirmation=preview["confirmation"]))

    card = await tenant.see("/v1/members/ana")
    changes = await tenant.service.context.enrolments.changes(tenant.name, "ana")
    newest = changes[0]
    assert forbidden.status == 403
    assert result == {"members": 1, "changed": 1}
    assert {each["product_id"]: each["status"] for each in card["enrolments"]} == {"a": "deactivated", "b": "active"}
    assert (newest.actor, newest.reason, newest.before.status, newest.after.status) == (
        "olga",
        "refund",
        "active",
        "deactivated",
    )


async def test_a_selection_of_nobody_or_of_two_kinds_is_refused(tenant):
    """And so is what the action does not take."""
    await imported(tenant, member("ana"))

    refused = [
        await asked(tenant, action="tag", tags=["a"]),
        await asked(tenant, action="tag", tags=["a"], ids=["ana"], filter={}),
        await asked(tenant, action="tag", ids=["ana"]),
        await asked(tenant, action="exempt", ids=["ana"], tags=["a"]),
        await asked(tenant, action="tag", tags=["a"], ids=["nobody"]),
    ]

    assert [(each.status, each["errors"][0]["pointer"]) for each in refused] == [
        (400, "/ids"),
        (400, "/ids"),
        (400, "/tags"),
        (400, "/tags"),
        (400, "/ids"),
    ]


async def test_many_are_erased_when_it_is_asked_twice_and_the_reason_names_none_of_them(tenant):
    """The first call changes nothing; the same with its confirmation erases those alone, for administrators."""
    await imported(tenant, member("erasable-1"), member("erasable-2/%"), member("stays"))
    said = {"ids": ["erasable-1", "erasable-2/%", "nobody"], "reason": "letter of erasable-1 and erasable-2/%"}

    async def erase(role: str = "administrator", **more: Any) -> Answer:
        answer: Answer = await tenant.call("POST", "/v1/members/erase", said | more, role=role)
        return answer

    refused = await erase("supervisor")
    preview = await erase()
    before = [each["member_id"] for each in (await tenant.see("/v1/members"))["items"]]
    result = await done(tenant, await erase(confirmation=preview["confirmation"]))

    audit = (await tenant.call("GET", "/v1/audit", role="administrator"))["items"]
    assert (refused.status, preview.status, preview["members"], len(before)) == (403, 200, 2, 3)
    assert result == {"members": 2, "changed": 2}
    assert [each["member_id"] for each in (await tenant.see("/v1/members"))["items"]] == ["stays"]
    assert {each["action"] for each in audit} >= {"member.erase", "bulk.erase"}
    assert "erasable-" not in str(audit)


async def test_the_audit_log_is_read_once_for_all_who_are_erased(tenant, monkeypatch):
    """Whatever they are called, none of their names is left in it; of those who stay every word is."""
    called = {
        "ü-1/%": "Ána Süß-Łódź",
        "\u202eאבגד": "\u202eאבגד ד",
        "🦊🦊🦊🦊": "🦊🦊🦊🦊 x",
        "x" * 128: "O'Hara (Jr.)",
    }
    await imported(tenant, *(member(each, name=name) for each, name in called.items()), member("stays", name="Ána"))
    reasons = [*called, *called.values(), "ÁNA SÜSS, ÁNA SÜß-ŁÓDŹ", "stays with Ána"]
    for each in reasons:
        asked = {"tags": [f"t{len(each)}", f"of {each}"[:60]], "reason": f"told by {each}, who rang"}
        assert (await tenant.call("PATCH", "/v1/members/stays", asked, role="supervisor")).status == 200
    pages: list[object] = []
    page = Redaction.page

    async def counted(self: Redaction, after: Any) -> Any:
        pages.append(after)
        return await page(self, after)

    monkeypatch.setattr(Redaction, "page", counted)
    said = {"ids": list(called), "mode": "erase", "reason": f"letters of {', '.join(called)}"}
    preview = await tenant.call("POST", "/v1/members/erase", said, role="administrator")
    confirmed = said | {"confirmation": preview["confirmation"]}
    result = await done(tenant, await tenant.call("POST", "/v1/members/erase", confirmed, role="administrator"))

    audit = str((await tenant.call("GET", "/v1/audit?limit=200", role="administrator"))["items"])
    assert result == {"members": 4, "changed": 4}
    assert pages == [None]
    assert [each for each in (*called, *called.values()) if each in audit] == []
    assert audit.count("[erased]") > len(reasons)
    assert "stays with Ána, who rang" in audit
