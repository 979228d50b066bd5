"""Tests that wait for ever end all the same, and name themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CONFTEST = """
from tests import patience

patience.AGAIN_S = 0.5


def pytest_configure(config):
    config.pluginmanager.register(patience.Patience())


def pytest_asyncio_loop_factories():
    return {"uvloop": patience.Loop}
"""
TESTS = """
import asyncio

import pytest


@pytest.fixture
async def stuck():
    yield
    await asyncio.Event().wait()


async def deaf():
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.Event().wait()


async def test_waits():
    await deaf()


async def test_fails_and_waits(stuck):
    assert False


def test_is_busy():
    while True:
        pass


async def test_goes_on():
    pass
"""


def test_a_test_that_waits_for_ever_fails_and_says_where(tmp_path):
    """In its call, in what it does when it is given up, and in what is torn down after a failure; the next one is run."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)
    options = ("-q", "--tb=short", "-p", "no:schemathesis", "-p", "no:cacheprovider", "-n", "0", "-o", "timeout=1")
    command = [sys.executable, "-m", "pytest", *options, "-o", "asyncio_mode=auto", f"--rootdir={tmp_path}", tmp_path]

    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=60, check=False
    )

    assert "3 failed, 1 passed, 1 error" in done.stdout, done.stdout
    for name in ("test_waits", "test_fails_and_waits", "test_is_busy"):
        assert f"{name} took more than 1 s" in done.stdout
    assert "in deaf" in done.stdout
