"""What a refused student reads."""

from datetime import UTC, datetime, timedelta

import pytest

from accessguard.words.languages import LANGUAGES
from accessguard.words.moments import Clock, clock, whole_minute
from accessguard.words.student import ENDED, LAPSED, SAID, Told, refusal, values

AT = datetime(2026, 11, 8, 17, 54, 30, tzinfo=UTC)


def test_a_refusal_says_why_what_to_do_when_it_passes_and_who_helps():
    """In this order, with the numbers and in the student's own time."""
    told = Told(
        code="device_limit",
        limit=2,
        counted=3,
        retry_at=AT,
        support_email="help@school.example",
        clock=clock("Europe/Rome", "UTC"),
    )

    text = refusal("en", told)

    assert text == (
        "Your account can be used on 2 devices. Together with this one, there would be 3 devices. "
        "Please use a device on which you have already studied. "
        "A place becomes free by itself on 8 November 2026 at 18:55. "
        "If you need help, write to help@school.example."
    )


@pytest.mark.parametrize(
    ("language", "when"),
    [
        pytest.param("en", "on 8 November 2026 at 18:55.", id="English"),
        pytest.param("it", "da domenica 8 novembre 2026, alle ore 18:55.", id="Italian"),
        pytest.param("pt-BR", "em 8 de novembro de 2026, às 18:55.", id="Portuguese"),
        pytest.param("es", "el 8 de noviembre de 2026 a las 18:55.", id="Spanish"),
        pytest.param("ru", "8 ноября 2026\u202f\u0433. в 18:55.", id="Russian"),
        pytest.param("uk", "8 листопада 2026\u202f\u0440. після 18:55.", id="Ukrainian"),
    ],
)
def test_a_time_is_written_as_the_language_writes_it(language, when):
    """Dates and times are CLDR's, in a sentence that fits every date."""
    told = Told(code="login_failures", limit=5, retry_at=AT, clock=clock("Europe/Rome", "UTC"))

    assert when in refusal(language, told)


@pytest.mark.parametrize(
    ("own", "school", "shown"),
    [
        pytest.param("America/Sao_Paulo", "Europe/Rome", "at 14:55.", id="the student's own, which needs no word"),
        pytest.param(None, "Europe/Rome", "at 18:55 (UTC+1).", id="the school's, said"),
        pytest.param(None, "Asia/Kolkata", "at 23:25 (UTC+5:30).", id="half an hour"),
        pytest.param(None, "UTC", "at 17:55 (UTC).", id="no zone known"),
        pytest.param("Nowhere/At_All", "../../etc", "at 17:55 (UTC).", id="zones that are none"),
    ],
)
def test_a_time_is_the_students_or_says_whose_it_is(own, school, shown):
    """Where the student lives is not guessed."""
    told = Told(code="login_failures", limit=5, retry_at=AT, clock=clock(own, school))

    assert shown in refusal("en", told)


@pytest.mark.parametrize("seconds", [0, 1, 29, 59, 60])
def test_who_tries_at_the_time_that_was_said_is_not_too_early(seconds):
    """The time is rounded up to a whole minute."""
    at = datetime(2026, 11, 8, 17, 54, tzinfo=UTC) + timedelta(seconds=seconds)

    assert at <= whole_minute(at) < at + timedelta(minutes=1)
    assert whole_minute(at).second == 0


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("challenged", [False, True])
def test_every_refusal_can_be_said(language, challenged):
    """With everything known and with nothing known, no text has a hole or a brace."""
    cases = [Told(code=code) for code in (*SAID, "a_code_of_tomorrow")]
    cases += [Told(code="session_ended", end_reason=each) for each in (*ENDED, "kicked")]
    cases += [Told(code="no_active_enrolment", lapse=each) for each in LAPSED]

    for bare in cases:
        full = Told(
            code=bare.code,
            end_reason=bare.end_reason,
            lapse=bare.lapse,
            limit=1,
            counted=2,
            retry_at=AT,
            support_email="help@school.example",
            challenged=challenged,
            clock=Clock(),
        )
        for text in (refusal(language, bare), refusal(language, full)):
            assert text.endswith((".", "example."))
            assert not {"{", "}", "None"} & {each.strip() for each in text.replace("{", " { ").split()}


def test_each_end_and_each_lapse_has_words_of_its_own():
    """An evicted student is told why, and so is one whose access is paused, over or not begun."""
    ends = {refusal("en", Told(code="session_ended", end_reason=each)) for each in (*ENDED, "kicked")}
    lapses = {refusal("en", Told(code="no_active_enrolment", lapse=each, retry_at=AT)) for each in (*LAPSED, "")}

    assert len(ends) == len(ENDED) + 1
    assert len(lapses) == len(LAPSED) + 1


def test_a_frozen_enrolment_says_when_it_opens_again():
    """The reopening date is what the student needs most."""
    text = refusal("it", Told(code="no_active_enrolment", lapse="frozen", retry_at=AT, clock=clock("Europe/Rome", "")))

    assert "Si riaprirà domenica 8 novembre 2026, alle ore 18:55." in text


def test_a_challenge_asks_to_confirm_instead_of_sending_away():
    """Who can go on at once is not told to wait or to write to support."""
    text = refusal("es", Told(code="device_limit", limit=2, counted=3, retry_at=AT, challenged=True))

    assert text.endswith("Para continuar, confirme que es usted.")
    assert "2026" not in text


def test_a_school_s_own_text_gets_the_same_numbers_and_times():
    """What a placeholder stands for reads as in the usual words; what is not known is None."""
    told = Told(code="device_limit", limit=2, retry_at=AT, clock=clock("Europe/Rome", "UTC"))

    assert values("ru", told) == {
        "limit": "2",
        "counted": None,
        "retry_at": "8 ноября 2026\u202f\u0433., 18:55",
        "support_email": None,
    }
