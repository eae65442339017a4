"""Which images of a comparison come first."""

from pathlib import Path

from qaclims_ray.data import artifacts
from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.evaluation.image_counts import CountedFigure, write_image_counts
from qaclims_ray.stages.compare import run_compare
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.requests import CompareArguments
from tests.finished_artifacts import finished
from tests.unit.stages.unmasked_run import CLASSES, SYSTEM, make_run


def scored_run(out: Path, found: list[int]) -> str:
    """A run whose final network finds so many of each image's 100 pixels."""
    run = make_run(out, images=len(found), masked=len(found))
    layout = RunLayout(run)
    images = [
        (f"i{at}", [(0, 900, 1000 - one, 900, 0), (1 + at % 2, one, one, 100, 1)]) for at, one in enumerate(found)
    ]
    uri = layout.predictions(SYSTEM)
    write_image_counts(uri, [CountedFigure("plain", 0.5, images)], CLASSES.names)

    meta = artifacts.read_meta(uri)
    assert meta is not None
    finished(Artifact(uri=uri, kind="predictions", settings=meta.settings, inputs=meta.inputs, verb=""))
    return run


def test_the_largest_gains_and_losses_stand_on_the_page(tmp_path):
    runs = [scored_run(tmp_path / "a", [50, 50, 50, 50, 50, 50]), scored_run(tmp_path / "b", [90, 20, 50, 60, 49, 51])]
    _, page = run_compare(CompareArguments(tuple(runs), resamples=200))
    text = Path(page).read_text()
    gains = text[text.index("Largest gains") : text.index("Largest losses")]
    losses = text[text.index("Largest losses") :].split("</section>")[0]
    assert [name for name in ("i0", "i3", "i5") if f"<b>{name}</b>" in gains] == ["i0", "i3", "i5"]
    assert gains.index("<b>i0</b>") < gains.index("<b>i3</b>") < gains.index("<b>i5</b>") and "<b>i2</b>" not in gains
    assert losses.index("<b>i1</b>") < losses.index("<b>i4</b>") and "<b>i0</b>" not in losses
    assert "A 50.0 %, B 90.0 %" in gains and 'href="gallery/index.html#order=1.final&amp;image=i0"' in gains
