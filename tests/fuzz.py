"""How many examples the fuzzers try: some in every run, as many as it takes in the nightly one (`make fuzz`)."""

from __future__ import annotations

import os
from typing import Final, TypeVar

from hypothesis import HealthCheck, settings

NIGHTLY: Final = "nightly"
MANY: Final = 100_000

Told = TypeVar("Told")


def at_night(nightly: Told, *, usual: Told) -> Told:
    """How much a test does that is marked `hypothesis`, though none of it is left to Hypothesis."""
    return nightly if os.environ.get("HYPOTHESIS_PROFILE") == NIGHTLY else usual


def examples(usual: int, nightly: int = MANY) -> settings:
    """Settings for a test that tries `usual` examples, and `nightly` ones under that profile.

    For tests whose number differs from the profile's own: those that talk to
    the service take milliseconds each, so that they try fewer at night. Such a
    test may share its fixtures among all its examples.
    """
    return settings(
        max_examples=nightly if settings.get_current_profile_name() == NIGHTLY else usual,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
