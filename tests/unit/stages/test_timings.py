from pathlib import Path

import pytest

from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.report import read_timings, write_timings


def test_timings_come_back(tmp_path: Path) -> None:
    layout = RunLayout(str(tmp_path), trial="a")
    assert read_timings(layout) == {}
    write_timings(layout, {"CAMs of [b]": 1.5, "data": 2.0})
    assert read_timings(layout) == {"CAMs of [b]": 1.5, "data": 2.0}


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"data": "fast"}', '{"data": null}', '{"data": -1}', "\x00\x01"])
def test_damaged_timings_are_passed_over_with_a_line(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "timings.json").write_text(content)
    assert read_timings(RunLayout(str(tmp_path))) == {}
    assert f"{tmp_path}/timings.json is damaged" in caplog.text
