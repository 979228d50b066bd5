"""Whatever token is shown, nobody gets a device by it that is not his."""

from datetime import timedelta

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from accessguard.devices.cookie import Claim, secret_hash
from accessguard.guard.plan import plan
from accessguard.guard.tokens import GRADES, TokenState, claimed_state
from tests.build import NOW, number, stored_device
from tests.guard.test_plan import NEW_DEVICE, NOTHING, claim_of, opening, visit

secrets = st.sampled_from([bytes([each]) * 32 for each in range(6)])
marks = st.lists(secrets.map(lambda secret: secret_hash(secret)[:8]), max_size=6).map(b"".join)


@settings(deadline=None)  # the first example loads the recogniser
@given(
    shown=secrets,
    present=secrets,
    before=st.none() | secrets,
    older=marks | st.binary(max_size=70),
    seconds=st.integers(-60, 10**7),
    arrived=st.booleans(),
    forgotten=st.booleans(),
    mine=st.booleans(),
)
def test_a_device_is_given_for_its_present_token_or_the_one_before_alone(
    *, shown, present, before, older, seconds, arrived, forgotten, mine
):
    """Any history of a device: no exception, and what is old is graded for the one whose device it was."""
    claimed = msgspec.structs.replace(
        claim_of(1, member="ana" if mine else "ben", forgotten=forgotten),
        secret_hash=secret_hash(present),
        previous_hash=None if before is None else secret_hash(before),
        older_hashes=older,
        rotated_at=NOW - timedelta(seconds=seconds),
        shown=arrived,
    )
    asked = msgspec.structs.replace(
        visit(claims=number(1), device_token="a token"), claim=Claim(device_id=number(1), secret=shown)
    )
    devices = (stored_device(1),) if mine and not forgotten else ()

    made = plan(opening(*devices, claimed=claimed), NOTHING, asked)

    state = claimed_state(claimed, asked.claim, NOW)
    may = shown == present or (shown == before and (seconds <= 30 or not arrived))
    assert made.device_id == (number(1) if mine and may and not forgotten else NEW_DEVICE)
    grades = [each.details["grade"] for each in made.rows.violations]
    assert grades == ([GRADES[state]] if mine and state in GRADES else [])
    assert (state is TokenState.CURRENT) is (shown == present and not forgotten)
