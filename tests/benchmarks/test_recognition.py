"""The harness reads the shapes of corpora that others keep, and counts hits and misses honestly."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from accessguard.devices.browser import DeviceClass
from benchmarks.corpora import Case, ShapeError, read
from benchmarks.recognition import FLOORS, Line, main

CORPUS = Path(__file__).with_name("corpus.csv")
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
)
PIXEL = {"Sec-CH-UA-Model": '"Pixel 8"'}


def written(folder: Path, name: str, text: str) -> Path:
    """A file of a corpus."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def run(*arguments: str | Path) -> Result:
    """The command as it is typed."""
    return CliRunner().invoke(main, [*map(str, arguments), "--jobs", "1"])


def results(*arguments: str | Path) -> dict[str, Line]:
    """What it prints as JSON, by kind."""
    return {each.kind: each for each in msgspec.json.decode(run(*arguments, "--json").output, type=list[Line])}


def test_our_own_corpus_reaches_every_floor():
    """By hand, after what browsers send today; every class with a floor is in it."""
    found = results(CORPUS)

    assert {kind for kind, line in found.items() if not line.reached} == set()
    assert set(found) >= set(FLOORS)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        pytest.param(
            "mine.csv",
            f"User Agent,Browser,OS,Class,Sec-CH-UA-Model\n{CHROME.replace(',', ';')},Chrome,Windows,PC,x\n",
            Case(
                user_agent=CHROME.replace(",", ";"),
                hints={"sec-ch-ua-model": "x"},
                family="Chrome",
                os="Windows",
                device_class=DeviceClass.DESKTOP,
            ),
            id="CSV, a hint in a column",
        ),
        pytest.param(
            "mine.yaml",
            json.dumps([{"ua": CHROME, "hints": PIXEL, "device_class": "mobile"}]),
            Case(user_agent=CHROME, hints=PIXEL, device_class=DeviceClass.MOBILE),
            id="YAML",
        ),
        pytest.param(
            "test_ua.yaml",
            json.dumps({"test_cases": [{"user_agent_string": CHROME, "family": "Chrome", "major": "142"}]}),
            Case(user_agent=CHROME, family="Chrome"),
            id="ua-parser, browsers",
        ),
        pytest.param(
            "test_os.yaml",
            json.dumps({"test_cases": [{"user_agent_string": CHROME, "family": "Windows", "major": "10"}]}),
            Case(user_agent=CHROME, os="Windows"),
            id="ua-parser, systems",
        ),
        pytest.param(
            "phablet.yml",
            json.dumps(
                [
                    {
                        "user_agent": CHROME,
                        "headers": PIXEL,
                        "os": {"name": "Android"},
                        "client": {"type": "mobile app"},
                        "device": {"type": "phablet"},
                    }
                ]
            ),
            Case(user_agent=CHROME, hints=PIXEL, device_class=DeviceClass.MOBILE, program=True),
            id="Matomo",
        ),
        pytest.param(
            "bots.yml",
            json.dumps([{"user_agent": CHROME, "bot": {"name": "Somebot"}}]),
            Case(user_agent=CHROME, device_class=DeviceClass.BOT),
            id="Matomo, bots",
        ),
        pytest.param(
            "crawlers.json",
            json.dumps([{"pattern": "x", "instances": [CHROME]}]),
            Case(user_agent=CHROME, device_class=DeviceClass.BOT),
            id="crawler-user-agents",
        ),
        pytest.param(
            "expected.tsv",
            "\ufeffUA\texpected_family\texpected_os\texpected_class\nx\tChrome\tWindows\tdesktop\n",
            Case(user_agent="x", family="Chrome", os="Windows", device_class=DeviceClass.DESKTOP),
            id="columns that say they are expected, between tabs, after a byte order mark",
        ),
        pytest.param(
            "semicolons.csv",
            "user_agent;class\nx;bot\n",
            Case(user_agent="x", device_class=DeviceClass.BOT),
            id="semicolons",
        ),
        pytest.param(
            "nested.yaml",
            json.dumps(
                {"cases": [{"user-agent": "x", "expected": {"browser": {"family": "Chrome"}, "os": "Windows"}}]}
            ),
            Case(user_agent="x", family="Chrome", os="Windows"),
            id="what is expected in a mapping, in a list that has a name",
        ),
        pytest.param(
            "lines.jsonl",
            json.dumps({"ua": "x", "class": "bot"}) + "\n",
            Case(user_agent="x", device_class=DeviceClass.BOT),
            id="JSON lines",
        ),
        pytest.param(
            "watch.csv",
            "user_agent,class\nx,wearable\n",
            Case(user_agent="x"),
            id="a class that we have not is not graded",
        ),
    ],
)
def test_each_shape_is_read(tmp_path: Path, name: str, text: str, expected: Case):
    """Columns go by their usual names."""
    (case,) = read(written(tmp_path, name, text))

    assert msgspec.to_builtins(case) == msgspec.to_builtins(expected)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("x.json", text) for text in ("", "1", "{}", "[1]", '{"test_cases": ["x"]}', "[" * 100_000)),
        *(("x.json", f'[{{"ua": "x", "class": "bot", "hints": {hints}}}]') for hints in ('"{"', "[1]")),
        *(("x.yaml", text) for text in ("", "a: [", "- - x")),
        *(("x.csv", text) for text in ("", "a,b\n1,2\n")),
    ],
)
def test_another_shape_is_refused(tmp_path: Path, name: str, text: str):
    """In a sentence, and not as no case at all."""
    path = written(tmp_path, name, text)

    with pytest.raises(ShapeError):
        list(read(path))

    assert run(path).output.startswith("Error: ")


def test_nothing_to_grade_is_no_success(tmp_path: Path):
    """A file whose columns have other names would pass every floor."""
    path = written(tmp_path, "x.csv", "user_agent,colour\nx,blue\n")

    checked = run(path, "--check")

    assert (checked.exit_code, "nothing to grade" in checked.output) == (1, True)


def test_misses_are_counted_and_written(tmp_path: Path):
    """A wrong expectation is a miss of its kind, the right one beside it is none."""
    path = written(
        tmp_path, "x.yaml", json.dumps([{"ua": CHROME, "family": "Firefox", "os": "Windows", "class": "tv"}])
    )
    missed = tmp_path / "misses.csv"

    checked = run(path, "--check", "--misses", missed)
    found = results(path)

    assert checked.exit_code == 1
    assert {kind: line.found for kind, line in found.items()} == {"class tv": 0.0, "family": 0.0, "os": 1.0}
    with missed.open(newline="") as file:
        assert [(row["kind"], row["expected"], row["found"]) for row in csv.DictReader(file)] == [
            ("class tv", "tv", "desktop"),
            ("family", "Firefox", "Chrome"),
        ]


def test_names_of_others_for_one_browser_are_no_misses(tmp_path: Path):
    """Matomo's macOS is `Mac`, and Edge has a maker."""
    edge = CHROME.replace("Windows NT 10.0; Win64; x64", "Macintosh; Intel Mac OS X 10_15_7") + " Edg/142.0.0.0"
    path = written(tmp_path, "x.yaml", json.dumps([{"ua": edge, "family": "Microsoft Edge", "os": "Mac"}]))

    found = results(path, "--first")

    assert {line.found for line in found.values()} == {1.0}
