"""The fuzzer finds planted faults, reports none for a correct function, and can repeat a given case."""

import re

import pytest

from tests.fuzz.__main__ import NAMES, Findings, format_findings, fuzz
from tests.fuzz.watch import Watch

pytestmark = pytest.mark.slow


@pytest.fixture
def watch(tmp_path, request):
    (tmp_path / "work").mkdir()
    # On a busy machine, other faults would take longer than a hang must.
    seconds = 1 if "hang" in request.node.name else 10
    watch = Watch("tests.fuzz.planted", seed=3, work=tmp_path / "work", seconds=seconds, memory=500_000_000)
    yield watch
    watch.stop()


@pytest.mark.parametrize(
    ("entrance", "verdict", "kind"),
    [
        ("traceback", "traceback", "ValueError in "),
        ("hang", "hang", "hang in .*planted.py: _sleep"),
        ("memory", "memory", "memory in .*planted.py: _allocate"),
        ("silent", "silent", "silent: a damaged file was loaded"),
        ("raw_output", "raw output", "raw output: a command prints control characters"),
        ("network", "network", "network"),
        ("crash", "crash", "exit code -6 in .*planted.py: _die"),
    ],
)
def test_planted_faults_are_found_and_the_next_case_runs(watch, entrance, verdict, kind):
    found = watch.run(entrance, 0)
    assert (found.name, found.is_fault) == (verdict, True)
    assert re.match(kind, found.kind), found.kind
    assert watch.run("sound", 0).name in ("accepted", "refused")


def test_a_sound_function_has_no_faults(watch, tmp_path):
    findings = fuzz(watch, ("sound",), 1.5, tmp_path / "out")
    assert set(findings.counts["sound"]) == {"accepted", "refused"}
    assert findings.faults == {}
    assert format_findings(findings, 3, tmp_path).splitlines()[0].split() == ["entrance", "refused", "accepted"]


def test_the_smallest_case_of_a_fault_is_kept_and_shown_once(watch, tmp_path):
    (tmp_path / "out").mkdir()
    findings, sizes = Findings(), []
    for number in range(8):
        verdict, folder = watch.run("traceback", number), watch.work / f"traceback-{number}"
        sizes.append((folder / "case.txt").stat().st_size)
        findings.add("traceback", number, verdict, folder, tmp_path / "out")
    smallest = sizes.index(min(sizes))
    (kept,) = (tmp_path / "out").iterdir()
    assert kept.name == f"traceback-{smallest}"
    assert len({*sizes}) > 1
    text = format_findings(findings, 3, tmp_path / "out")
    assert text.count("traceback: ValueError") == 1
    assert f"--seed 3 --only traceback:{smallest}" in text
    assert list(watch.work.glob("traceback-*")) == []


def test_a_case_is_the_same_again(watch):
    texts = []
    for number in (5, 6, 5):
        watch.run("sound", number)
        texts.append((watch.work / f"sound-{number}" / "case.txt").read_text())
    assert texts[0] == texts[2] != texts[1]


# CI runs the fuzzer itself.
@pytest.mark.exhaustive
def test_every_entrance_withstands_a_few_cases(tmp_path):
    watch = Watch("tests.fuzz.entrances", seed=0, work=tmp_path, seconds=60)
    try:
        found = {(name, number): watch.run(name, number) for name in NAMES for number in range(4)}
    finally:
        watch.stop()
    assert {case: verdict for case, verdict in found.items() if verdict.is_fault} == {}
    assert {verdict.name for verdict in found.values()} == {"accepted", "refused"}
