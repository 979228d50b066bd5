"""How many examples the fuzzers try: some in every run, as many as it takes in the nightly one (`make fuzz`)."""

from __future__ import annotations

from typing import Final

from hypothesis import HealthCheck, settings

NIGHTLY: Final = "nightly"
MANY: Final = 100_000


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
