"""What a new tenant starts with."""

import uuid

import pytest
from uuid_utils.compat import uuid7

from accessguard.app import first_rules
from accessguard.config import Config, Tenants
from accessguard.errors import StartError
from accessguard.policies.store import SYSTEM
from accessguard.rules.model import Mode
from tests.build import NOW


def config(preset: str) -> Config:
    """A configuration with this preset."""
    return Config(tenants=Tenants(preset=preset))


async def test_a_new_tenant_only_watches(service):
    """It has the rules of the preset, none of which refuses anybody; a tenant that is there keeps its own."""
    store, name = service.context.policies, f"new-{uuid.uuid4()}"
    first = {uuid7(): body for body in first_rules(config("observe-only"))}

    made = await store.ensure_tenant(name, name, at=NOW, first=first)
    again = await store.ensure_tenant(name, name, at=NOW, first={uuid7(): body for body in first.values()})

    rules = await store.rules(name)
    assert (made, again) == (True, False)
    assert [each.id for each in rules] == list(first)
    assert {each.body.mode for each in rules} == {Mode.OBSERVE}
    assert [each.actor for each in await store.versions(name, rules[0].id)] == [SYSTEM]


async def test_a_tenant_may_start_with_nothing(service):
    """The preset `none` has no rule."""
    store, name = service.context.policies, f"new-{uuid.uuid4()}"
    first = {uuid7(): body for body in first_rules(config("none"))}

    await store.ensure_tenant(name, name, at=NOW, first=first)

    assert list(await store.rules(name)) == []


def test_a_preset_that_there_is_not_stops_the_start():
    """The error names those that there are."""
    with pytest.raises(StartError, match="household"):
        first_rules(config("laissez-faire"))
