"""Images to label by hand: exported with drafts, and read back to score; no Ray is started."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from qaclims_ray.commands.main import run_verb
from qaclims_ray.data.images import save_label_map
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.errors import ArtifactError, ConfigError, DataError
from qaclims_ray.stages.label_these import run_label_these
from qaclims_ray.stages.label_these_read import hand_remarks, hand_scores_table, score_hand_masks
from qaclims_ray.stages.requests import LabelTheseArguments
from tests.unit.stages.unmasked_run import SIZE, SYSTEM, make_run, maps_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_run(tmp_path_factory.mktemp("labelled") / "run")


def exported(run: str, out: Path, **options) -> list[str]:
    return run_label_these(LabelTheseArguments(run, out=str(out), **options))


def scored(run: str, out: Path, **options):
    return score_hand_masks(LabelTheseArguments(run, read=str(out), **options))


def test_the_images_that_disagree_most_are_exported_with_drafts(run: str, tmp_path: Path) -> None:
    lines = exported(run, tmp_path / "out", number=3)
    listed = json.loads((tmp_path / "out" / "label_these.json").read_text())
    assert list(listed["drafts"]) == ["i5", "i4", "i3"] and listed["by"] == "disagreement", "classes take turns"
    assert lines[0].startswith("  i5 (dog): agreement ") and lines[-1].endswith(f"-> {tmp_path / 'out'}")
    for name in ("i3", "i4", "i5"):
        assert Image.open(tmp_path / "out" / "images" / f"{name}.jpg").size == SIZE
        draft = load_mask(str(tmp_path / "out" / "masks" / f"{name}.png"))
        assert (draft == maps_of(int(name[1]), 0)["final"]).all(), "of the last stage"
        drawn = json.loads((tmp_path / "out" / "images" / f"{name}.json").read_text())
        assert drawn["imagePath"] == f"{name}.jpg" and drawn["shapes"][0]["shape_type"] == "polygon"
    assert (tmp_path / "out" / "classes.txt").read_text() == "cat\ndog\n"
    readme = (tmp_path / "out" / "README.txt").read_text()
    assert f"qaclims label-these {run} --read {tmp_path / 'out'}" in readme and "    1  cat" in readme


def test_drafts_that_may_be_corrected_are_not_written_over(run: str, tmp_path: Path) -> None:
    exported(run, tmp_path / "out", number=1)
    with pytest.raises(ConfigError, match="holds drafts already"):
        exported(run, tmp_path / "out", number=2)


def test_corrected_masks_score_every_stage_and_others_do_not_count(run: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    exported(run, out, number=4)
    with pytest.raises(DataError, match=r"no mask of .* was corrected: all 4 are"):
        scored(run, out)
    seeds = {name: maps_of(int(name[1]), 0)["seed"] for name in ("i4", "i5")}
    save_label_map(seeds["i4"], str(out / "masks" / "i4.png"))
    corners = [[1, 2], [9, 2], [9, 12], [1, 12]]
    content = json.loads((out / "images" / "i5.json").read_text())
    content["shapes"] = [{"label": "dog", "points": corners, "shape_type": "polygon"}]
    (out / "images" / "i5.json").write_text(json.dumps(content))
    found = scored(run, out, resamples=200)
    assert sorted(found.corrected) == ["i4", "i5"] and sorted(found.unchanged) == ["i2", "i3"]
    by_stage = {one.source.stage: one for one in found.scores}
    assert by_stage["seed"].miou == 1.0 and by_stage["seed"].num_images == 2
    assert 0 < by_stage["final"].miou < by_stage["mask"].miou < 1
    assert by_stage["mask"].iou["cat"] == pytest.approx(4 / 12)  # boxes of 8 columns, moved by 4
    assert [row[1] for row in hand_scores_table(found).plain_rows()] == ["seed", "pseudo mask", "final network"]
    text = " ".join(hand_remarks(found))
    assert "2 of 4 images were left as they are" in text and "harder than the others" in text
    assert "scoring alone" in text
    assert json.loads((out / "scores.json").read_text())["corrected"] == list(found.corrected)
    everything = scored(run, out, resamples=200, accept_unchanged=True)
    assert len(everything.corrected) == 4 and not everything.unchanged


def test_a_mask_that_does_not_fit_is_refused_with_its_name(run: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    exported(run, out, number=3)
    save_label_map(torch.zeros((3, 3), dtype=torch.uint8), str(out / "masks" / "i5.png"))
    save_label_map(torch.full((SIZE[1], SIZE[0]), 7, dtype=torch.uint8), str(out / "masks" / "i4.png"))
    save_label_map(torch.zeros((SIZE[1], SIZE[0]), dtype=torch.uint8), str(out / "masks" / "i3.png"))
    content = json.loads((out / "images" / "i3.json").read_text())
    (out / "images" / "i3.json").write_text(json.dumps({**content, "shapes": []}))
    with pytest.raises(DataError) as refused:
        scored(run, out)
    for words in ("3 masks of", "i5.png has 3x3 pixels, expected 20x16", "label value 7", "i3 was corrected twice"):
        assert words in str(refused.value), words


def test_a_random_sample_says_that_it_is_one(run: str, tmp_path: Path) -> None:
    samples = set()
    for seed in range(5):
        exported(run, tmp_path / str(seed), number=3, random=True, seed=seed)
        samples.add(tuple(json.loads((tmp_path / str(seed) / "label_these.json").read_text())["drafts"]))
    assert len(samples) > 1
    found = scored(run, tmp_path / "0", accept_unchanged=True, resamples=200)
    assert found.by == "random" and "harder" not in " ".join(hand_remarks(found))


def test_images_with_a_mask_are_not_asked_for(tmp_path: Path) -> None:
    run = make_run(tmp_path / "some", masked=3)
    exported(run, tmp_path / "out", number=9)
    assert list(json.loads((tmp_path / "out" / "label_these.json").read_text())["drafts"]) == ["i1", "i2", "i0"]
    with pytest.raises(DataError, match=r"every image of .* has a true mask already"):
        exported(make_run(tmp_path / "all", masked=6), tmp_path / "none")


def test_what_is_missing_is_said(run: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no system 'nobody' with label maps; it has baseline"):
        exported(run, tmp_path / "out", system="nobody")
    with pytest.raises(ConfigError, match="holds no drafts"):
        scored(run, tmp_path)
    other = make_run(tmp_path / "other")
    (Path(other) / "trust" / "meta.json").unlink()
    with pytest.raises(ArtifactError, match="qaclims report"):
        exported(other, tmp_path / "out")
    for options in ({"number": 0}, {"resamples": 99}, {"seed": -1}):
        with pytest.raises(ConfigError, match="expected at least"):
            LabelTheseArguments(run, **options)


def test_the_verb_exports_and_scores(run: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = str(tmp_path / "out")
    assert run_verb("label-these", [run, "--number", "2", "--out", out]) == 0
    assert "2 images and drafts" in capsys.readouterr().out
    assert run_verb("label-these", [run, "--read", out]) == 2
    assert run_verb("label-these", [run, "--read", out, "--accept-unchanged"]) == 0
    printed = capsys.readouterr().out
    assert "Against 2 masks corrected by hand" in printed and SYSTEM in printed
