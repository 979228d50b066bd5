"""The short form of `python -m tests.client_faults`: what may happen on the way to a service, in seven seconds."""

from __future__ import annotations

import asyncio
import random

import pytest

from accessguard.client import Verdict
from accessguard.client.model import Decision
from tests.client_faults.judging import PROMISED_S, Judge, Student
from tests.client_faults.play import Play
from tests.client_faults.weather import Weather
from tests.service import Service

SEED = 11
SHORT = (Weather.TWICE, Weather.GARBAGE, Weather.STREAM_CUT, Weather.HALF_CLOSED, Weather.CUT, Weather.REFUSED)
EACH_S = 0.7


@pytest.mark.slow
async def test_whatever_happens_on_the_way_nobody_is_let_in_wrongly_and_nobody_waits(service: Service, tmp_path):
    """Answers twice, half, in garbage, streams cut, connections refused, while devices are blocked and sessions end."""
    played = Play(service.url, service.tenant().name, tmp_path, random.Random(SEED))

    async with played.begun():
        for weather in SHORT:
            await played.fault(weather, EACH_S)
        await asyncio.sleep(1)

    outcome = played.outcome(SEED, 0)
    assert outcome.breaches == []
    assert outcome.blocks >= 2
    assert {name.partition(": ")[0] for name in outcome.said} == {"open", "closed", "blocking"}


def test_the_judge_finds_who_is_let_in_too_late_and_who_has_the_answer_of_somebody_else():
    """An allow within 5 s of a block is forgiven, a later one is not; nor is another's verdict, nor one that is late."""
    judge, student = Judge(), Student(member_id="m", session_id="s", device_id="d", free=None)
    allow = Verdict(decision=Decision.ALLOW, session_id="s")
    other = Verdict(decision=Decision.DENY, session_id="t")
    began = 1e12  # so far ahead that no answer is late

    student.blocked = began - PROMISED_S + 0.1
    judge.judge("c", began, 1, student, allow)
    forgiven = len(judge.breaches)
    student.blocked = began - PROMISED_S - 0.1
    judge.judge("c", began, 1, student, allow)
    judge.judge("c", began, 1, student, other)
    judge.judge("c", 0.0, 0.5, student, other)

    assert forgiven == 0
    assert [each.promise for each in judge.breaches] == [
        "no wrong allow beyond 5 s",
        "no answer is another's",
        "no hang beyond the deadline",
        "no answer is another's",
    ]
