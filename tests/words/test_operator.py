"""What operators read."""

import pytest

from accessguard.policies.model import RuleBody, normalised
from accessguard.rules.model import Code, Kind
from accessguard.words.languages import LANGUAGES
from accessguard.words.operator import case_text, sentence

WINDOW = {"window_s": 1800}
RULES = [
    pytest.param("ip_deny", "deny", {"networks": ["203.0.113.0/24"]}, "From 1 listed network: access is refused.", id="ip_deny"),
    pytest.param("ip_allow_only", "deny", {"networks": ["203.0.113.1", "203.0.113.2"]}, "From outside 2 listed networks: access is refused.", id="ip_allow_only"),
    pytest.param("country_deny", "log", {"countries": ["IT", "BR"]}, "From 2 listed countries (Italy and Brazil): it is only recorded.", id="country_deny"),
    pytest.param("country_allow_only", "deny", {"countries": ["IT"]}, "From outside 1 listed country (Italy): access is refused.", id="country_allow_only"),
    pytest.param("asn_deny", "challenge", {"asns": [64500, 64501, 64502, 64503, 64504, 64505]}, "Through 6 listed network operators (AS64500, AS64501, AS64502, AS64503, AS64504, …): the student is asked to confirm.", id="asn_deny"),
    pytest.param("session_limit", "evict_idle", {"max": 1, "window_s": 5400, "per": "app", "activities": None}, "At most 1 session active within 90 minutes; beyond that, the session that was idle the longest is ended. Counted for each app.", id="session_limit"),
    pytest.param("session_limit", "deny_new", {"max": 1, "activities": ["video_watch"], **WINDOW}, "At most 1 session active within 30 minutes; beyond that, access is refused. Only these activities count: video watched.", id="one may watch"),
    pytest.param("device_limit", "deny_new", {"max": 2, "window_days": 30, "per": "member"}, "At most 2 devices within 30 days; beyond that, access is refused.", id="device_limit"),
    pytest.param("device_limit", "deny_new", {"max": 2, "window_days": None}, "At most 2 devices in all; beyond that, access is refused.", id="for ever"),
    pytest.param("device_churn", "challenge", {"max_new": 3, "window_days": 1, "swaps": {"max": 1, "window_days": 30}}, "At most 3 new devices within 1 day; beyond that, the student is asked to confirm. Students may free a place themselves.", id="device_churn"),
    pytest.param("network_limit", "log", {"max": 1, "window_s": 45, "unit": "city", "escalation": {"days": 30}}, "At most 1 city within 45 seconds; beyond that, it is only recorded. It becomes stricter for a student with repeated cases.", id="network_limit"),
    pytest.param("impossible_travel", "deny_new", {"max_speed_kmh": 900, "min_distance_km": 500}, "Faster than 900 km/h over more than 500 km: access is refused.", id="impossible_travel"),
    pytest.param("copied_session", "end_session", {"signal": "both"}, "One session in two browsers, or on two networks at the same time: the session is ended.", id="copied_session"),
    pytest.param("login_failures", "deny", {"max": 5, "window_s": 900, "lock_s": 3600, "per": "ip"}, "After 5 failed logins within 15 minutes, logins are locked for 1 hour. Counted for each address.", id="login_failures"),
    pytest.param("enrolment", "deny", {"products": None}, "Without any active enrolment, access is refused.", id="any enrolment"),
    pytest.param("enrolment", "deny", {"products": ["a", "b"]}, "Without an active enrolment in one of 2 listed products, access is refused.", id="enrolment"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "action", "params", "text"), RULES)
def test_a_rule_is_said_in_a_sentence(kind, action, params, text):
    """What it counts, within which time, and what it does then."""
    assert sentence("en", kind=kind, mode="enforce", action=action, params=params) == text


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("kind", "action", "params", "text"), RULES)
def test_a_rule_can_be_said_in_every_language(language, kind, action, params, text):
    """Only English reads as English does, and no text has a hole in it."""
    said = sentence(language, kind=kind, mode="observe", action=action, params=params)

    assert said.endswith(".")
    assert "{" not in said
    assert said.startswith(text) == (language == "en")


def test_a_rule_that_is_not_in_force_says_so():
    """Nobody takes an observed rule for an enforced one."""
    params = {"max": 2, "window_days": 30}

    said = {
        mode: sentence("en", kind="device_limit", mode=mode, action=None, params=params)
        for mode in ("off", "observe", "enforce")
    }

    assert said["off"] == said["enforce"] + " Switched off."
    assert said["observe"] == said["enforce"] + " For now it is only observed: nobody is refused."


def test_the_params_of_a_stored_rule_are_those_that_a_sentence_is_made_of():
    """A limit as it is stored, every default written out, can be said."""
    stored = normalised(RuleBody(kind=Kind.SESSION_LIMIT, params={"max": 1}))

    said = sentence("en", kind=stored.kind, mode=stored.mode, action=stored.action, params=stored.params)

    assert said.startswith("At most 1 session active within 30 minutes; beyond that, access is refused.")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("code", Code)
def test_every_case_has_a_text(language, code):
    """Also an old one whose details are empty."""
    bare, full = case_text(language, code, {}), case_text(language, code, {"limit": 2, "counted": 3})

    assert bare
    assert "{" not in bare + full


def test_a_case_names_its_numbers():
    """An operator sees at a glance by how much."""
    assert case_text("en", "device_limit", {"limit": 2, "counted": 3}) == "3 devices in use, 2 allowed"
    assert case_text("ru", "session_limit", {"limit": 1, "counted": 2}) == "Используются 2 сеанса, разрешено: 1"
