"""Plays a plan: every browser with its cookie jar and its session, every answer counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from accessguard.demo.client import Service
from accessguard.demo.model import (
    DAY_S,
    Ask,
    AskTogether,
    Block,
    Browser,
    MarkRead,
    SignIn,
    SignOut,
    Step,
    Story,
    SwitchOff,
)

OVER = frozenset({"session_ended", "session_expired", "unknown_session"})


class Tally:
    """What came of it, counted by answer."""

    def __init__(self) -> None:
        self.logins: Counter[str] = Counter()
        self.checks: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.new_devices = 0
        self.evicted = 0
        self.exempt = 0
        self.not_sent = 0


class Player:
    """Sends the steps of stories in real time, `day_s` seconds for a day of 24 hours (0: as fast as it goes).

    `jars` are the cookies that browsers kept from an earlier day, by the
    browser's key. A browser whose session is over asks nothing more until
    somebody signs in there again, as on a real platform.
    """

    def __init__(
        self, service: Service, *, day_s: float, jars: Mapping[str, str], on_step: Callable[[int], None]
    ) -> None:
        self.tally = Tally()
        self.jars = dict(jars)
        self._service = service
        self._scale = day_s / DAY_S
        self._on_step = on_step
        self._sessions: dict[str, str] = {}
        self._devices: dict[str, str] = {}
        self._began = asyncio.get_running_loop().time()

    async def play(self, story: Story) -> None:
        """Send a story's steps one after the other, each when its time has come."""
        for step in story.steps:
            due = self._began + step.at_s * self._scale
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            await self.send(step)

    async def send(self, step: Step) -> None:
        """Send one step."""
        match step:
            case SignIn():
                await self._sign_in(step)
            case Ask():
                await self._ask(step)
            case AskTogether():
                await self._ask_together(step)
            case SignOut():
                await self._sign_out(step)
            case Block() | SwitchOff() | MarkRead():
                await self._operate(step)
        self._on_step(step.at_s)

    async def _sign_in(self, step: SignIn) -> None:
        browser = step.browser
        answer = await self._service.call("platform", "POST", "/v1/logins", login(step, self.jars.get(browser.key)))
        device, session = answer["device"], answer["session"]
        self._sessions.pop(browser.key, None)
        if device is not None:
            self.jars[browser.key] = device["token"]
            self._devices[browser.key] = device["id"]
            self.tally.new_devices += device["new"]
        if session is not None:
            self._sessions[browser.key] = session["id"]
        self.tally.evicted += sum(each["reason"] == "session_limit" for each in answer["ended_sessions"])
        self.tally.exempt += answer["exempt"]
        self.tally.logins["failed" if step.failure_reason else answer["decision"]] += 1
        self._count_refusal(answer)

    async def _ask(self, step: Ask) -> None:
        question = self._question(step)
        if question is None:
            self.tally.not_sent += 1
            return
        self._hear(step.browser, await self._service.call("platform", "POST", "/v1/check", question))

    async def _ask_together(self, step: AskTogether) -> None:
        asked = [(each.browser, question) for each in step.asks if (question := self._question(each)) is not None]
        self.tally.not_sent += len(step.asks) - len(asked)
        if not asked:
            return
        answer = await self._service.call("platform", "POST", "/v1/checks", {"checks": [each for _, each in asked]})
        for (browser, _), result in zip(asked, answer["results"], strict=True):
            self._hear(browser, result)

    def _question(self, step: Ask) -> dict[str, Any] | None:
        session_id = self._sessions.get(step.browser.key)
        return None if session_id is None else check(step, session_id, self.jars.get(step.browser.key))

    def _hear(self, browser: Browser, answer: dict[str, Any]) -> None:
        self.tally.checks[answer["decision"]] += 1
        self._count_refusal(answer)
        if answer["reason"] is not None and answer["reason"]["code"] in OVER:
            self._sessions.pop(browser.key, None)

    def _count_refusal(self, answer: dict[str, Any]) -> None:
        if answer["reason"] is not None:
            self.tally.refusals[answer["reason"]["code"]] += 1

    async def _sign_out(self, step: SignOut) -> None:
        session_id = self._sessions.pop(step.browser.key, None)
        if session_id is None:
            self.tally.not_sent += 1
            return
        path = f"/v1/sessions/{quote(session_id, safe='')}/end"
        await self._service.call("platform", "POST", path, {"reason": step.reason})

    async def _operate(self, step: Block | SwitchOff | MarkRead) -> None:
        place = f"/v1/members/{quote(step.member_id, safe='')}"
        match step:
            case Block():
                device_id = self._devices.get(step.browser.key)
                if device_id is not None:
                    asked = {"access": "blocked", "reason": step.reason}
                    await self._service.call("supervisor", "PATCH", f"{place}/devices/{device_id}", asked)
            case SwitchOff():
                off = {"checks_enabled": False, "reason": step.reason}
                await self._service.call("supervisor", "PATCH", place, off)
            case MarkRead():
                marks = {"member_id": step.member_id, "read": True}
                await self._service.call("supervisor", "POST", "/v1/violations/mark", marks)


def login(step: SignIn, device_token: str | None) -> dict[str, Any]:
    """The body of `POST /v1/logins`."""
    return {
        "member_id": step.member_id,
        "identifier": step.identifier,
        "outcome": "failure" if step.failure_reason else "success",
        "failure_reason": step.failure_reason,
        "method": step.method,
        "app": step.app,
        "host": step.host,
        "ip": step.ip,
        "user_agent": step.browser.user_agent,
        "client_hints": step.browser.client_hints,
        "device_token": device_token,
        "attempt_id": str(uuid4()),  # makes it safe to send the same body again
    }


def check(step: Ask, session_id: str, device_token: str | None) -> dict[str, Any]:
    """The body of `POST /v1/check`."""
    return {
        "session_id": session_id,
        "ip": step.ip,
        "user_agent": step.browser.user_agent,
        "device_token": device_token,
        "activity": step.activity,
        "resource": step.resource,
        "product_id": step.product_id,
    }
