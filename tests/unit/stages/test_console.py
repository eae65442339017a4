import io
import threading
import time

import pytest
from rich.console import Console

from qaclims_ray.stages import console as console_module
from qaclims_ray.stages.console import ConsoleProgress

HOSTILE = ("[b]", "[/b]", "a[/b]/out", "[draft v2]", ":smile:", "{x}", "100%", "\u732b", "\udce9", "\x1b[2J")


def quiet_console() -> Console:
    return Console(file=io.StringIO(), width=80)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("is_terminal", [False, True])
@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_changes_a_line_or_ends_the_run(name: str, is_terminal: bool) -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=is_terminal, color_system=None)
    progress = ConsoleProgress(console)
    progress.remarks([name])
    progress.start(f"CAMs of {name}")
    progress.remake(f"cams/{name} is made again: a {name} -> b")
    progress.note(name)
    progress.advance(1, 2)
    progress.epoch({"loss": 1.0})
    progress.finish(f"2 masks -> /data/{name}/out")
    progress.start(name)
    progress.abort()
    shown = name.replace("\udce9", "\\udce9").replace("\x1b", "\\x1b")
    lines = text_of(console)
    for line in (f"remark: {shown}", f"cams/{shown} is made again: a {shown} -> b", f"  {shown}", f"/data/{shown}/out"):
        assert f"{line}\n" in lines
    assert f"CAMs of {shown}" in lines


def wait_for(console: Console, word: str) -> str:
    """Wait until a line says a word."""
    deadline = time.monotonic() + 60
    while word not in text_of(console) and time.monotonic() < deadline:
        time.sleep(0.005)
    return next(line for line in text_of(console).splitlines() if word in line)


def test_a_silent_stage_says_that_it_is_at_work() -> None:
    progress = ConsoleProgress(console := quiet_console(), alive_interval_s=0.01)
    progress.start("train [b]x[/b]")
    assert wait_for(console, "still in") == "still in train [b]x[/b], 0 s"
    progress.finish("done")


def test_a_stage_says_its_share_and_the_time_left() -> None:
    progress = ConsoleProgress(console := quiet_console(), alive_interval_s=0.01)
    progress.start("CAMs of baseline")
    progress.advance(10, 40)
    assert wait_for(console, "10 of 40").endswith(" s: 10 of 40 (25%)")
    progress.advance(20, 40)
    assert wait_for(console, "20 of 40 (50%), about ").endswith(" left")
    progress.abort()


def test_the_time_left_counts_what_this_call_did() -> None:
    lines = console_module._AliveLines(quiet_console(), "train", 1e6)
    lines.advance(500, 1000)
    now, _ = lines._first or (0.0, 0)
    lines.advance(600, 1000)
    assert lines._line(now + 60).endswith(": 600 of 1000 (60%), about 4 min 00 s left")
    lines.advance(1000, 1000)
    assert lines._line(now + 60).endswith(": 1000 of 1000 (100%), about 0.0 s left")
    lines.stop()


def test_nothing_is_said_of_a_short_stage_nor_after_its_end() -> None:
    before = threading.active_count()
    progress = ConsoleProgress(console := quiet_console(), alive_interval_s=1e6)
    for name in ("data", "corpus"):
        progress.start(name)
        progress.finish("done")
    assert "still" not in text_of(console)
    progress = ConsoleProgress(console, alive_interval_s=0.01)
    progress.start("text")
    wait_for(console, "still in text")
    progress.finish("done")
    deadline = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.005)
    assert threading.active_count() <= before
    assert text_of(console).splitlines()[-1].endswith("done")


def test_a_terminal_has_bars_and_no_such_lines() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    progress = ConsoleProgress(console, alive_interval_s=0.001)
    progress.start("data")
    progress.advance(1, 2)
    time.sleep(0.05)
    assert progress._alive is None and progress._bars is not None
    progress.finish("done")
    assert "still in" not in text_of(console)


def test_seconds_are_handed_on_as_stages_end() -> None:
    kept: list[dict[str, float]] = []
    progress = ConsoleProgress(quiet_console(), {"data": 9.0}, on_seconds=lambda seconds: kept.append({**seconds}))
    progress.start("data")
    progress.finish("there already", is_new=False)
    assert kept == []
    progress.start("train")
    progress.finish("done")
    progress.start("cams")
    progress.abort()
    assert [list(seconds) for seconds in kept] == [["data", "train"]] and kept[0]["data"] == 9.0


def test_what_was_said_before_is_not_said_again() -> None:
    console = quiet_console()
    progress = ConsoleProgress(console, said={"known"})
    for text in ("known", "new"):
        progress.note(text)
        progress.remarks([text])
    assert text_of(console) == "  new\nremark: new\n"
