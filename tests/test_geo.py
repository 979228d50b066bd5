"""Places of addresses: what is known, what is not, and files that change, lack or are damaged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from accessguard.geo import FileState, Geo, place
from accessguard.metrics import REGISTRY
from accessguard.rules.model import Place
from tests.build import host
from tests.mmdb import city, mmdb
from tests.service import Service

MILAN = city("IT", "Milan", 45.46, 9.19, region="Lombardy")
LISBON = city("PT", "Lisbon", 38.72, -9.14)
V4 = "203.0.113.0/24"


def written(path: Path, content: bytes) -> Path:
    """A file that takes the place of the one before in one step, as an updater does."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(path)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A city file that knows one network of each version."""
    return written(tmp_path / "city.mmdb", mmdb({V4: MILAN, "2001:db8::/32": LISBON}))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param(
            "203.0.113.9", Place(country="IT", city="Milan, Lombardy", latitude=45.46, longitude=9.19), id="IPv4"
        ),
        pytest.param("2001:db8:1::9", Place(country="PT", city="Lisbon", latitude=38.72, longitude=-9.14), id="IPv6"),
        pytest.param("::ffff:203.0.113.9", Place(country="IT", city="Milan, Lombardy", latitude=45.46, longitude=9.19), id="mapped"),
        pytest.param("198.51.100.1", Place(), id="not in the file"),
        pytest.param("2001:db9::1", Place(), id="not in the file, IPv6"),
    ],
)  # fmt: skip
def test_an_address_has_the_place_of_its_network(path, text, found):
    """What the file says; where it says nothing, every field is unknown."""
    assert Geo([path]).lookup(host(text)) == found


def test_without_files_every_place_is_unknown():
    """Nothing configured is no fault."""
    geo = Geo([])

    assert (geo.lookup(host("203.0.113.9")), geo.lookup(None), geo.up) == (Place(), Place(), None)


def test_several_files_complete_each_other(tmp_path, path):
    """For each field the first file that knows it."""
    asn = written(tmp_path / "asn.mmdb", mmdb({V4: {"autonomous_system_number": 64500}}, version=4))
    other = written(tmp_path / "other.mmdb", mmdb({V4: LISBON, "198.51.100.0/24": LISBON}))

    geo = Geo([asn, path, other])

    known = geo.lookup(host("203.0.113.9"))
    assert (known.asn, known.country, known.city) == (64500, "IT", "Milan, Lombardy")
    assert geo.lookup(host("198.51.100.1")).country == "PT"
    assert geo.lookup(host("2001:db8::1")).country == "PT"


async def test_a_file_that_changed_is_taken_up(path):
    """Without a restart; what was looked up before is looked up again."""
    geo = Geo([path])
    before = geo.lookup(host("203.0.113.9"))
    written(path, mmdb({V4: LISBON}))

    stale = geo.lookup(host("203.0.113.9"))
    await geo.refresh()

    assert (before, stale, geo.lookup(host("203.0.113.9")).country) == (stale, before, "PT")


async def test_a_file_that_did_not_change_is_left_alone(path):
    """Looking every few seconds costs a stat, and keeps what is remembered."""
    geo = Geo([path])
    readers = [file.reader for file in geo.files]

    await geo.refresh()

    assert [file.reader for file in geo.files] == readers


@pytest.mark.parametrize(
    ("spoil", "state"),
    [
        pytest.param(lambda path: written(path, b""), FileState.DAMAGED, id="empty"),
        pytest.param(lambda path: written(path, b"no such format" * 1000), FileState.DAMAGED, id="something else"),
        pytest.param(lambda path: written(path, path.read_bytes()[:-40]), FileState.DAMAGED, id="cut"),
        pytest.param(lambda path: path.unlink(), FileState.MISSING, id="gone"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), FileState.DAMAGED, id="a folder"),
    ],
)
async def test_a_bad_file_leaves_the_last_good_one_in_use(path, spoil, state):
    """It is said, and no lookup fails; a good one is taken up again."""
    geo = Geo([path])
    good = path.read_bytes()
    spoil(path)

    await geo.refresh()
    during = (geo.files[0].state, geo.up, geo.lookup(host("203.0.113.9")).country)
    if path.is_dir():
        path.rmdir()
    written(path, good)
    await geo.refresh()

    assert during == (state, False, "IT")
    assert (geo.files[0].state, geo.up) == (FileState.LOADED, True)


async def test_a_file_may_come_later(tmp_path):
    """The service starts without it, and says so."""
    geo = Geo([tmp_path / "later.mmdb"])
    before = (geo.files[0].state, geo.up, geo.lookup(host("203.0.113.9")))
    written(tmp_path / "later.mmdb", mmdb({V4: MILAN}))

    await geo.refresh()

    assert before == (FileState.MISSING, False, Place())
    assert (geo.up, geo.lookup(host("203.0.113.9")).country) == (True, "IT")


@pytest.mark.parametrize("damaged", range(8))
def test_no_damage_inside_a_file_reaches_a_caller(tmp_path, damaged):
    """Bits that changed give another place or none, whatever they hit."""
    content = bytearray(mmdb({V4: MILAN, "198.51.100.0/24": LISBON}))
    for place_of in range(damaged, content.index(b"\xab\xcd\xefMaxMind.com"), 8):
        content[place_of] ^= 0xFF

    geo = Geo([written(tmp_path / "bits.mmdb", bytes(content))])

    assert isinstance(geo.lookup(host("203.0.113.9")), Place)


@pytest.mark.parametrize(
    "record",
    [
        pytest.param({"country": "IT"}, id="country is a text"),
        pytest.param({"country": {"iso_code": 7}}, id="code is a number"),
        pytest.param({"country": {"iso_code": "ITA"}}, id="code of three letters"),
        pytest.param({"autonomous_system_number": "AS64500"}, id="number is a text"),
        pytest.param({"autonomous_system_number": 2**32}, id="number too large"),
        pytest.param({"city": {"names": ["Milan"]}}, id="names are a list"),
        pytest.param({"location": {"latitude": 91.0, "longitude": 0.0}}, id="beyond the pole"),
        pytest.param({"location": {"latitude": 45.0}}, id="half a place"),
        pytest.param({"location": {"latitude": float("nan"), "longitude": 0.0}}, id="not a number"),
    ],
)
def test_what_has_another_shape_is_unknown(record):
    """A file of somebody else's making is read as far as it goes."""
    assert place([record]) == Place()


def test_a_file_that_is_replaced_in_place_with_the_same_time_is_noticed(path):
    """Size and inode count as well."""
    geo = Geo([path])
    stat = path.stat()
    written(path, mmdb({V4: LISBON}))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    again = Geo([path])

    assert geo.files[0].mark != again.files[0].mark


async def test_readiness_and_metrics_say_how_the_files_stand(service: Service, path, tmp_path):
    """A file that is not in use is down, and makes nobody unready; without files nothing is said."""
    ready = service.context.ready
    before, geo = ready._geo, Geo([path, tmp_path / "none.mmdb"])
    silent = await ready.parts()
    try:
        ready._geo = geo
        async with service.http.get(f"{service.url}/readyz") as response:
            answered = (response.status, (await response.json())["parts"]["geo"])
    finally:
        ready._geo = before

    geo.measure(1_790_000_000 + 86_400)

    counted = {state: REGISTRY.get_sample_value("accessguard_geo_files", {"state": state}) for state in FileState}
    assert "geo" not in silent
    assert answered == (200, "down")
    assert counted == {FileState.LOADED: 1, FileState.MISSING: 1, FileState.DAMAGED: 0}
    assert REGISTRY.get_sample_value("accessguard_geo_age_seconds") == 86_400
