"""The hosts of a school: kept with one that is primary, and nobody logs in at another."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from accessguard.policies.host_book import Owned, owners
from accessguard.policies.hosts import Host, plain, primary, serves
from tests.service import Answer, Tenant

HOSTS = [{"host": "learn.example.com", "primary": True}, {"host": "old.example.com", "status": "inactive"}, {"host": "escola.example"}]  # fmt: skip


async def save(tenant: Tenant, hosts: Any) -> Answer:
    """An administrator lists the hosts."""
    return await tenant.call("PUT", "/v1/settings", {"hosts": hosts}, role="administrator")


async def test_a_login_at_an_unknown_host_is_refused(tenant: Tenant):
    """With a pointer and no trace of it, failed ones too; one that names no host is not asked for it."""
    free = await tenant.login(host="whatever.example")
    saved = await save(tenant, HOSTS)

    answers = {
        host: await tenant.login("ana", host=host)
        for host in ("learn.example.com", "LEARN.Example.com.:443", "escola.example", None, "old.example.com", "evil.example", "")
    }  # fmt: skip
    failed = await tenant.login("ana", outcome="failure", host="evil.example")
    log = await tenant.see("/v1/members/ana/logins")

    assert (free.status, saved.status) == (200, 200)
    assert [answer.status for answer in answers.values()] == [200, 200, 200, 200, 400, 400, 400]
    assert answers["evil.example"]["errors"][0]["pointer"] == failed["errors"][0]["pointer"] == "/host"
    assert {line["host"] for line in log["items"]} & {"old.example.com", "evil.example"} == set()


@pytest.mark.parametrize(
    ("hosts", "pointer"),
    [
        pytest.param([{"host": "a.example"}], "/hosts", id="none is primary"),
        pytest.param(
            [{"host": "a.example", "primary": True}, {"host": "b.example", "primary": True}], "/hosts", id="two"
        ),
        pytest.param([{"host": "a.example", "primary": True}, {"host": "A.example"}], "/hosts/1/host", id="twice"),
        pytest.param(
            [{"host": "a.example", "primary": True, "status": "inactive"}], "/hosts/0/status", id="not in use"
        ),
        pytest.param([{"host": "a.example:80", "primary": True}], "/hosts/0/host", id="a port"),
        pytest.param([{"host": "", "primary": True}], "/hosts/0/host", id="nothing"),
    ],
)
async def test_a_list_of_hosts_that_makes_no_sense_is_refused(tenant: Tenant, hosts, pointer):
    """With a pointer to what is wrong, and nothing is changed."""
    await tenant.login()

    refused = await save(tenant, hosts)

    assert (refused.status, refused["errors"][0]["pointer"]) == (400, pointer)
    assert (await tenant.call("GET", "/v1/settings", role="administrator"))["hosts"] == []


def test_a_host_that_two_schools_list_is_nobodys():
    """Whoever comes third, or lists it twice, changes nothing about that."""
    found = owners(Owned(tenant=tenant, host=host) for tenant, host in ("ax", "bx", "ax", "by", "by", "az"))

    assert found == {"x": None, "y": "b", "z": "a"}


async def test_a_host_of_another_schools_is_refused(service):
    """However it is written; one out of use may be listed, and one's own may stay."""
    one, other = service.tenant(), service.tenant()
    host = f"schule-münchen.{one.name}.example"
    await one.login()
    await other.login()
    first = await save(one, [{"host": host, "primary": True}])

    again = await save(one, [{"host": host, "primary": True}, {"host": f"b.{one.name}.example"}])
    free = {"host": f"c.{one.name}.example", "primary": True}
    taken = await save(other, [free, {"host": f"XN--SCHULE-MNCHEN-3OB.{one.name}.example"}])
    idle = await save(other, [free, {"host": host, "status": "inactive"}])

    assert [answer.status for answer in (first, again, taken, idle)] == [200, 200, 400, 200]
    assert taken["errors"][0]["pointer"] == "/hosts/1/host"


async def test_of_schools_that_take_a_host_at_the_same_time_one_has_it(service):
    """The others are told that it is another school's, as they would be a moment later; so it is never nobody's."""
    schools = [service.tenant() for _ in range(6)]
    for each in schools:
        await each.login()
    hosts = [f"{name}.{schools[0].name}.example" for name in "abc"]

    races = [
        await asyncio.gather(*(save(each, [{"host": host, "primary": True}]) for each in schools)) for host in hosts
    ]

    assert [sorted(answer.status for answer in answers) for answers in races] == [[200, *[400] * 5]] * 3


def test_hosts_are_compared_as_browsers_write_them():
    """Capitals, a port, the last dot and the alphabet make no other host; links lead to the primary one."""
    hosts = (Host(host="Schule-München.example", primary=True), Host(host="b.example"))

    assert plain("schule-münchen.EXAMPLE.:8443") == "xn--schule-mnchen-3ob.example" == primary(hosts)
    assert serves(hosts, "XN--SCHULE-MNCHEN-3OB.example")
    assert not serves(hosts, "b.example.evil")
    assert serves((), "anything")
    assert primary(()) is None
