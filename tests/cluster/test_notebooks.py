"""The notebooks, each in a kernel of its own, on one tiny run that they share."""

from pathlib import Path

import nbformat
import pytest

from notebooks.execute import execute
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import with_overrides
from qaclims_ray.stages.pipeline import run_pipeline
from tests.cluster.small_run import SMALL
from tests.cluster.test_semples import SEMPLES

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900), pytest.mark.usefixtures("shared_ray")]

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("0*.py"))
TINY = {
    **SMALL,
    **SEMPLES,
    "systems": ["baseline", "qa_clims", "semples"],
    "goal": "segmentation",
    "supervised_bound": False,
    "masks.steps": ["crf"],
    "segmentation.optim.epochs": 1,
    "segmentation.steps_per_epoch": 12,
    "segmentation.optim.batch_size": 8,
    "data.limit": 24,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("notebooks") / "run"
    run_pipeline(with_overrides(preset("miniature", "semples"), TINY), str(out))
    return out


def _outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_pictures(source, finished, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:IProgress not found")
    parameters = {"run": str(finished)}
    if source.stem == "04_take_it_away":
        parameters["out"] = str(tmp_path / "masks")
    before = {path for path in finished.rglob("*") if "report" not in path.parts}
    outputs = _outputs(execute(source, tmp_path, parameters))
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    assert {path for path in finished.rglob("*") if "report" not in path.parts} == before, "nothing was trained again"
    if "out" in parameters:
        assert len(list((tmp_path / "masks").glob("*.png"))) == 6


def test_a_parameter_that_no_cell_has_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"04_take_it_away\.py has no parameter folder"):
        execute(NOTEBOOKS[-1], tmp_path, {"folder": "x"})


def test_sources_hold_no_outputs_and_are_listed() -> None:
    listed = (NOTEBOOKS[0].parent / "README.md").read_text()
    assert len(NOTEBOOKS) == 4
    for source in NOTEBOOKS:
        assert f"({source.name})" in listed and "image/png" not in source.read_text()
