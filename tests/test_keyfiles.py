"""Keys that rotate without a restart."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accessguard import dev
from accessguard.app import open_parts
from accessguard.config import Config, load, read_keys
from accessguard.credentials import hook_keys, key_files, keyring_of
from accessguard.devices.cookie import DeviceKey, DeviceTokens, new_secret
from accessguard.events.keys import DERIVED
from accessguard.guard.model import Login
from accessguard.guard.refused import RefusedPages
from accessguard.keyfiles import FileState, KeyFile, KeyFiles
from accessguard.metrics import REGISTRY
from accessguard.sessions.token import SessionKey, SessionTokens
from tests.build import number
from tests.service import CHROME, LAPTOP, config

OLD, NEW = "old:" + "o" * 32, "new:" + "n" * 32


def written(path: Path, text: str) -> Path:
    """The file with another content, renamed over the one before."""
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    return draft.rename(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with one key."""
    return written(tmp_path / "device-keys", OLD)


@pytest.fixture
def tokens() -> DeviceTokens:
    """Tokens by the key of that file."""
    return DeviceTokens([DeviceKey(id="old", secret="o" * 32)])


def watched(path: Path, tokens: DeviceTokens) -> KeyFiles:
    """The file as a worker watches it."""
    return KeyFiles([KeyFile(path, lambda text: tokens.take(read_keys("ACCESSGUARD_DEVICE_KEYS", text)))])


async def test_a_new_key_signs_and_the_old_one_still_verifies(path, tokens):
    """First it is put behind, so that every worker knows it; then first; then the old one goes."""
    files, before = watched(path, tokens), tokens.issue(number(1), new_secret())
    signed = []

    for text in (f"{OLD},{NEW}", f"{NEW},{OLD}", NEW):
        written(path, text)
        await files.refresh()
        signed.append((tokens.issue(number(1), new_secret()).split(".")[1], tokens.read(before) is not None))

    assert signed == [("old", True), ("new", True), ("new", False)]
    assert files.up is True


@pytest.mark.parametrize(
    ("text", "state"),
    [
        pytest.param(None, FileState.MISSING, id="gone"),
        pytest.param("", FileState.DAMAGED, id="empty"),
        pytest.param("new", FileState.DAMAGED, id="no secret"),
        pytest.param("new:short", FileState.DAMAGED, id="weak"),
        pytest.param(f"{NEW},{NEW}", FileState.DAMAGED, id="twice"),
        pytest.param("\udcff", FileState.DAMAGED, id="not text"),
    ],
)
async def test_a_file_that_cannot_be_used_changes_nothing(path, tokens, text, state, capsys):
    """The old keys stay; it is said in readiness, a metric and the log, without a secret."""
    files, before = watched(path, tokens), tokens.issue(number(1), new_secret())
    if text is None:
        path.unlink()
    else:
        path.with_suffix(".draft").write_bytes(text.encode(errors="surrogateescape"))
        path.with_suffix(".draft").rename(path)

    await files.refresh()
    files.measure()

    assert (files.up, tokens.read(before) is not None) == (False, True)
    assert REGISTRY.get_sample_value("accessguard_key_files", {"state": state}) == 1
    assert "n" * 32 not in capsys.readouterr().err
    written(path, NEW)
    await files.refresh()
    assert (files.up, tokens.issue(number(1), new_secret()).split(".")[1]) == (True, "new")


async def test_a_worker_takes_up_its_files_between_two_logins(path, database_url, redis_url, service):
    """A token of the old key is read, one of the new key is given, and the device is the same."""
    written(path, "d1:" + "d" * 40)
    settings = config(database_url, redis_url)
    settings = msgspec.structs.replace(settings, keys=msgspec.structs.replace(settings.keys, device_file=str(path)))
    parts = await open_parts(settings)
    tenant = service.tenant()
    await tenant.login("somebody")
    async with contextlib.AsyncExitStack() as stack:
        context = await stack.enter_async_context(parts.running())
        asked = {"member_id": "ana", "outcome": "success", "ip": LAPTOP, "user_agent": CHROME.format(142)}
        first = await context.logins.login(tenant.name, msgspec.convert(asked, type=Login), context.now_ms())
        assert first.device is not None
        written(path, f"{NEW},d1:" + "d" * 40)
        await parts.keys.refresh()
        again = msgspec.convert(asked | {"device_token": first.device.token}, type=Login)
        second = await context.logins.login(tenant.name, again, context.now_ms())
        ready = await context.ready.parts()

    assert second.device is not None
    assert second.device.id == first.device.id
    assert [each.device.token.split(".")[1] for each in (first, second) if each.device] == ["d1", "new"]
    assert ready["keys"] == "up"


async def test_webhooks_keys_are_taken_up_and_the_derived_one_stays_behind_them(path):
    """What was sealed before there was a file is opened by whoever has read it."""
    settings = config("postgresql://db/accessguard", "redis://cache")
    settings = msgspec.structs.replace(settings, keys=msgspec.structs.replace(settings.keys, webhook_file=str(path)))
    hooks, device = hook_keys(settings), DeviceTokens([DeviceKey(id="old", secret="o" * 32)])
    session = SessionTokens([SessionKey(id="s1", secret="s" * 40)])
    pages = RefusedPages(settings.keys.session, None)
    files = key_files(settings, device, session, pages, hooks=hooks, callers=keyring_of(settings))
    sealed = hooks.seal("t", number(1), "whsec_x")
    before = hooks.first
    written(path, f"{NEW},{OLD}")

    await files.refresh()

    assert (before, hooks.first) == (DERIVED, "new")
    assert hooks.open("t", number(1), sealed) == "whsec_x"
    assert len(hooks.published) == 3


def test_the_secrets_of_dev_are_completed(tmp_path):
    """A folder of a release that knew fewer keeps what it has."""
    settings = Config(data_folder=str(tmp_path))
    (tmp_path / "secrets.toml").write_text('ACCESSGUARD_IDENTIFIER_KEY = "kept"\n')

    dev.make_secrets(settings)
    found = dev.read_secrets(settings)
    dev.make_secrets(settings)

    assert found["ACCESSGUARD_IDENTIFIER_KEY"] == "kept"
    assert found["ACCESSGUARD_WEBHOOK_KEYS"].startswith("w1:")
    assert dev.read_secrets(settings) == found


def test_the_configuration_names_the_files_that_are_watched(tmp_path):
    """Lists that stand in the environment itself are read once."""
    keys = written(tmp_path / "keys", OLD)

    found = load({"ACCESSGUARD_DEVICE_KEYS_FILE": str(keys), "ACCESSGUARD_SESSION_KEYS": NEW}).keys

    assert (found.device_file, found.session_file) == (str(keys), None)
    assert [key.id for key in found.device] == ["old"]


@given(st.text(max_size=300))
def test_no_text_breaks_the_reading_of_keys(text):
    """It gives keys or one kind of error."""
    with contextlib.suppress(ValueError):
        assert read_keys("ACCESSGUARD_DEVICE_KEYS", text)


async def test_without_files_nothing_is_watched():
    """And readiness says nothing of keys."""
    files = KeyFiles()
    await asyncio.wait_for(files.refresh(), 1)

    assert files.up is None


def test_a_file_that_becomes_readable_as_it_is_is_taken_up(path):
    """Its permissions were wrong, say: setting them right changes nothing that is watched but them."""
    taken = list[str]()

    def take(text: str) -> None:
        taken.append(text)
        if len(taken) == 1:
            raise ValueError

    file = KeyFile(path, take)
    written(path, NEW)
    file.look()
    damaged = file.state

    file.look()

    assert (damaged, file.state, taken) == (FileState.DAMAGED, FileState.LOADED, [NEW, NEW])
