"""What README and the page of Python show: each block as it stands, on a run of the names that they use."""

import re
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qaclims_ray import LoadedNetwork, PredictedMask
from tests.unit.stages.random_network_run import write_run

ROOT = Path(__file__).parents[3]
SIZE = (48, 36)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a finished run and a photograph, which is the current one."""
    write_run(tmp_path / "runs" / "mine", ("bird", "bus", "dog"))
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(SIZE, Image.Resampling.BICUBIC).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("page", "number"), [("README.md", 1), ("docs/python.md", 5)])
def test_every_block_works_as_written(page, number, place, capsys) -> None:
    blocks = _blocks(page)
    assert len(blocks) == number
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    found = names["found"]
    assert isinstance(found, PredictedMask) and found.labels.shape == SIZE[::-1] and found.found
    mask = Image.open(place / "mask.png")
    assert mask.size == SIZE and (np.array(mask) == found.labels).all()
    if page == "docs/python.md":
        assert isinstance(names["network"], LoadedNetwork) and Image.open(place / "overlay.png").size == SIZE
        assert "the network does not know unicorn; it knows bird, bus, dog" in capsys.readouterr().out


def test_type_checkers_read_its_annotations() -> None:
    assert resources.files("qaclims_ray").joinpath("py.typed").is_file()
