"""The page of the first masks: each of its commands as it stands, in its order, on a folder of small pictures."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PAGE = Path(__file__).parents[2] / "docs" / "first_masks.md"
COLOURS = {"bird": (200, 40, 40), "bus": (40, 160, 60), "dog": (40, 70, 200)}
IMAGES_PER_CLASS = 7


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with `photos`, in it a folder per class of squares on a noisy ground."""
    draw = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for number in range(IMAGES_PER_CLASS):
            pixels = draw.integers(90, 160, (48, 48, 3), dtype=np.uint8)
            top, left = draw.integers(4, 24, 2)
            pixels[top : top + 18, left : left + 18] = colour
            Image.fromarray(pixels).save(folder / f"{number}.jpg" if name == "bird" else folder / f"{name}{number}.jpg")
    return tmp_path


def _blocks() -> list[tuple[str, str]]:
    return re.findall(r"^```(sh|python)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def _run(block: str, language: str, place: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        [sys.executable, "-c", block] if language == "python" else ["bash", "-e", "-c", block],
        cwd=place, env={**os.environ, "PATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, f"{block}\n{ended.stdout}\n{ended.stderr}"
    assert "Traceback" not in ended.stderr
    return ended.stdout


def _correct_by_hand(place: Path) -> None:
    for path in sorted((place / "to_correct" / "masks").glob("*.png"))[:6]:
        mask = Image.open(path)
        mask.paste(1, (2, 2, 12, 12))
        mask.save(path)


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_every_command_works_as_written(place):
    said = {}
    for language, block in _blocks():
        if "--read" in block:
            _correct_by_hand(place)
        said[block.strip()] = _run(block, language, place)
    look, start, drafts, scores, predict, python = said.values()
    assert "found in" in look and "bird 7, bus 7, dog 7" in look and "takes roughly" in look
    assert start.count("no split is named") == 1, "what was found is said once"
    assert "report.html" in start and (place / "runs/mine/report/report.html").is_file()
    assert "20 images and drafts" in drafts and (place / "to_correct/README.txt").is_file()
    assert "Against 6 masks corrected by hand" in scores
    assert "7 masks by the final network" in predict
    names = {path.name for path in (place / "predicted").iterdir()}
    assert names == {"masks", "overlays", "predictions.csv", "predictions.json"}
    assert python.startswith("{") and Image.open(place / "1.png").size == (48, 48)


def test_the_page_has_commands_to_run():
    assert [block.split()[1] for language, block in _blocks() if language == "sh"] == [
        *("start", "start", "label-these", "label-these", "predict"),
    ]
