"""The notebooks, each in a kernel of its own: the first makes a tiny run, the others read it."""

import re
from pathlib import Path

import nbformat
import pytest

from notebooks.execute import execute
from tests.cluster.small_run import SMALL, as_flags
from tests.cluster.test_semples import SEMPLES

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

FIRST, *OTHERS = sorted((Path(__file__).parents[2] / "notebooks").glob("0*.py"))
TINY = {
    **{name: value for name, value in SMALL.items() if name != "systems"},  # the notebook names them
    **SEMPLES,
    "goal": "segmentation",
    "supervised_bound": False,
    "masks.steps": ["crf"],
    "segmentation.optim.epochs": 1,
    "segmentation.steps_per_epoch": 12,
    "segmentation.optim.batch_size": 8,
    "data.limit": 24,
}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nbformat.NotebookNode]:
    """The run that the first notebook makes, and the notebook."""
    folder = tmp_path_factory.mktemp("notebooks")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONWARNINGS", "ignore:IProgress not found")
        notebook = execute(FIRST, folder, {"run": str(folder / "run"), "options": " ".join(as_flags(TINY))})
    return folder / "run", notebook


def _outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def _shows_pictures(outputs: list[nbformat.NotebookNode]) -> bool:
    return any("image/png" in output.get("data", {}) for output in outputs)


def test_the_first_notebook_makes_the_run_and_shows_what_it_says(first) -> None:
    run, notebook = first
    outputs = _outputs(notebook)
    said = "".join(output.text for output in outputs if output.get("name") == "stdout")
    assert _shows_pictures(outputs) and (run / "report" / "report.html").is_file()
    assert "qaclims run miniature semples --systems baseline qa_clims semples" in said
    assert "Seed mIoU" in said and "\x1b[2K" not in said, "moving bars fill a notebook"


@pytest.mark.parametrize("source", OTHERS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_pictures(source, first, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:IProgress not found")
    run, _ = first
    parameters = {"run": str(run)}
    if source.stem == "04_take_it_away":
        parameters["out"] = str(tmp_path / "masks")
    outputs = _outputs(execute(source, tmp_path, parameters))
    assert _shows_pictures(outputs)
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    if "out" in parameters:
        assert len(list((tmp_path / "masks").glob("*.png"))) == 6
        said = "".join(output.text for output in outputs if output.get("name") == "stdout")
        same = re.search(r"([\d.]+)% of the pixels have the label that PyTorch gave them", said)
        assert same is not None and float(same[1]) >= 99.9


def test_a_parameter_that_no_cell_has_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"04_take_it_away\.py has no parameter folder"):
        execute(OTHERS[-1], tmp_path, {"folder": "x"})


def test_sources_hold_no_outputs_and_are_listed() -> None:
    listed = (FIRST.parent / "README.md").read_text()
    assert len(OTHERS) == 3
    for source in (FIRST, *OTHERS):
        assert f"({source.name})" in listed and "image/png" not in source.read_text()
