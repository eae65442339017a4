"""The page from masks to a product: its commands as they stand, those that export run, the others are read."""

import re
import shlex
from pathlib import Path

import pytest

from qaclims_ray.commands.arguments import parse_run
from qaclims_ray.commands.line import Line
from qaclims_ray.commands.main import run_verb
from qaclims_ray.commands.verbs import VERBS
from qaclims_ray.data.images import save_label_map
from qaclims_ray.data.mask_export import ExportForm
from qaclims_ray.systems.checks import check_systems
from tests.unit.stages.unmasked_run import make_run, maps_of

PAGE = Path(__file__).parents[3] / "docs" / "from_masks_to_product.md"
LINES = [
    shlex.split(line)[1:]
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if re.match(r"qaclims (export-masks|run|predict) ", line)
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a finished run, and predictions of other images."""
    make_run(tmp_path / "runs" / "mine")
    photo = next((tmp_path / "runs" / "mine" / "photos").iterdir())
    save_label_map(maps_of(0, 0)["final"], str(tmp_path / "predicted" / "masks" / f"{photo.stem}.png"))
    names = '"cat", "dog"'
    content = f'{{"classes": [{names}], "images": [{{"image": "{photo}"}}]}}'
    (tmp_path / "predicted" / "predictions.json").write_text(content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_of_the_page_is_understood(place: Path) -> None:
    assert {line[0] for line in LINES} == {"export-masks", "run", "predict"} and len(LINES) == 6
    for verb, *rest in LINES:
        if verb == "export-masks":
            assert run_verb(verb, rest) == 0
            assert any((place / rest[rest.index("--out") + 1]).iterdir())
        elif verb == "predict":
            VERBS[verb].parse(Line(tuple(rest), f"qaclims {verb}", ""))
        else:
            check_systems(parse_run(Line(tuple(rest), f"qaclims {verb}", "")).config)


def test_the_table_has_every_form() -> None:
    told = set(re.findall(r"^\| `([\w-]+)` \|", PAGE.read_text(), re.MULTILINE))
    assert set(ExportForm.__args__) <= told  # type: ignore[attr-defined]
