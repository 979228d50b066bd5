"""A test that waits for ever fails, and says where it waited.

pytest-timeout raises in its signal handler. Where the loop is idle that is in
no task of the test's: the loop logs it, and waits on. And it lets go of the
clock at a test's first failure, though what is torn down then may wait, too.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

import pytest
import uvloop

AGAIN_S: Final = 20.0
"""After which whatever waits at the end of a test that was given up is given up as well."""


class Loop(uvloop.Loop):
    """The loop of the service, which knows whom it runs for."""

    doing: asyncio.Future[Any] | None = None
    given_up: str | None = None

    def run_until_complete(self, future: Any) -> Any:
        """Run until it is done; TimeoutError, from where it was, when it was given up."""
        self.doing, self.given_up = asyncio.ensure_future(future, loop=self), None
        try:
            return super().run_until_complete(self.doing)
        except asyncio.CancelledError as where:
            if self.given_up is None:
                raise
            raise TimeoutError(self.given_up) from where
        finally:
            self.doing = None

    def give_up(self, why: str) -> bool:
        """Cancel what it runs for; False where that is what is running just now, and may be told itself."""
        if self.doing is None or asyncio.current_task(self) is self.doing:
            return False
        self.given_up = why
        return self.doing.cancel()


class Patience:
    """The clock of each test, from its first fixture to its last, in place of that of pytest-timeout."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Iterator[None]:
        """Stop the clock when all is over, and not before."""
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def pytest_timeout_set_timer(self, item: pytest.Item, settings: Any) -> bool:
        """Start the clock; what hears of the end and waits on hears of it again."""
        why = f"{item.nodeid} took more than {settings.timeout:.0f} s"

        def over(_: int, __: FrameType | None) -> None:
            loop = asyncio._get_running_loop()
            if not isinstance(loop, Loop) or not loop.give_up(why):
                pytest.fail(why)

        signal.signal(signal.SIGALRM, over)
        signal.setitimer(signal.ITIMER_REAL, settings.timeout, AGAIN_S)
        return True

    def pytest_timeout_cancel_timer(self) -> bool:
        """Let the clock go on at a failure: what is torn down may wait for ever, too."""
        return True
