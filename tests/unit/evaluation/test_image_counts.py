import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qaclims_ray.data.classes import Classes
from qaclims_ray.errors import ArtifactError
from qaclims_ray.evaluation import image_counts
from qaclims_ray.evaluation.bootstrap import iou_of, mean_of
from qaclims_ray.evaluation.confusion import iou_per_label, mean_iou
from qaclims_ray.evaluation.image_counts import (
    IMAGE_COUNTS_FILE,
    CountedFigure,
    image_sweep,
    read_image_counts,
    write_image_counts,
)
from qaclims_ray.evaluation.sweep import ThresholdSweep
from tests.unit.evaluation.test_sweep import NAMES, THRESHOLDS, random_image

REMEDY = "`qaclims evaluate --out RUN`"


def _written(uri: str, seeds: list[int], *, figure: str = "fixed", index: int = 1) -> ThresholdSweep:
    sweep, images = ThresholdSweep(THRESHOLDS, 2), []
    for seed in seeds:
        cam, truth = random_image(seed)
        histogram = sweep.update(cam, truth)
        assert histogram is not None
        images.append((cam.image_id, image_sweep(cam.image_id, histogram, cam.class_ids).at(index)))
    write_image_counts(uri, [CountedFigure(figure, THRESHOLDS[index], images)], NAMES)
    return sweep


def test_table_holds_what_was_counted_in_any_order_of_the_images(tmp_path):
    sweep = _written(str(tmp_path / "a"), [3, 1, 2])
    _written(str(tmp_path / "b"), [2, 3, 1])
    found = read_image_counts(str(tmp_path / "a"), remedy=REMEDY)["fixed"]
    assert (found.image_ids, found.labels, found.threshold) == (("1", "2", "3"), ("background", *NAMES), 0.3)
    again = read_image_counts(str(tmp_path / "b"), remedy=REMEDY)["fixed"]
    assert np.array_equal(found.counts, again.counts)
    assert (tmp_path / "a" / IMAGE_COUNTS_FILE).read_bytes() == (tmp_path / "b" / IMAGE_COUNTS_FILE).read_bytes()
    matrix = sweep.confusion()[1]
    assert np.allclose(iou_of(found.counts.sum(0)), iou_per_label(matrix).numpy())
    averaged = found.scored_labels().averaged
    assert found.scored_labels() == sweep.labels(Classes(NAMES)) and averaged.all()
    mean = float(mean_iou(iou_per_label(matrix), torch.from_numpy(averaged)))
    assert float(mean_of(iou_of(found.counts.sum(0)), averaged)) == pytest.approx(mean)


def test_table_reads_as_any_parquet_file_and_leaves_out_what_is_not_there(tmp_path):
    cam, truth = random_image(4, (1,))
    truth[truth == 1] = 0
    histogram = ThresholdSweep(THRESHOLDS, 2).update(cam, truth)
    assert histogram is not None
    rows = image_sweep(cam.image_id, histogram, cam.class_ids).at(0)
    write_image_counts(str(tmp_path), [CountedFigure("best", 0.1, [("4", rows)])], NAMES)
    frame = pd.read_parquet(tmp_path / IMAGE_COUNTS_FILE)
    assert frame["class_name"].tolist() == ["background", "boat"] and frame["label_value"].tolist() == [0, 2]
    assert set(frame["figure"]) == {"best"} and frame["truth"].sum() == frame["predicted"].sum() == 64
    assert frame["labelled"].tolist() == [False, True]


def test_what_an_image_is_labelled_with_has_a_row_though_nothing_shows_it_or_is_predicted(tmp_path):
    cam, truth = random_image(4, (0, 1))
    truth[truth > 0] = 0
    cam.full.mul_(0.05)
    sweep = ThresholdSweep(THRESHOLDS, 2)
    histogram = sweep.update(cam, truth, (1,))
    rows = image_sweep(cam.image_id, histogram, cam.class_ids, (1,)).at(0)
    assert rows == [(0, 64, 64, 64, 0), (2, 0, 0, 0, 1)]
    write_image_counts(str(tmp_path), [CountedFigure("fixed", 0.1, [("4", rows)])], NAMES)
    found = read_image_counts(str(tmp_path), remedy=REMEDY)["fixed"]
    assert found.scored_labels() == sweep.labels(Classes(NAMES))
    assert found.scored_labels().left_out == ("bird",) and found.scored_labels().in_no_mask == ("boat",)
    assert found.without_background().scored_labels().names == NAMES


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=2, max_size=6, unique=True), st.integers(1, 5), st.integers(0, 3))
def test_counts_of_any_parts_add_up_to_the_merged_sweep(tmp_path_factory, seeds, cut, index):
    """The merge law: images counted in several shards sum to what the sums over shards say."""
    folder = tmp_path_factory.mktemp("counts")
    parts = [part for part in (seeds[:cut], seeds[cut:]) if part]
    sweeps = [_written(str(folder / str(number)), part, index=index) for number, part in enumerate(parts)]
    tables = [read_image_counts(str(folder / str(number)), remedy=REMEDY)["fixed"] for number in range(len(parts))]
    merged = sweeps[0]
    for sweep in sweeps[1:]:
        merged = merged.merge(sweep)
    matrix = merged.confusion()[index].numpy()
    expected = np.stack([matrix.diagonal(), matrix.sum(0), matrix.sum(1)], -1)
    assert np.array_equal(sum(table.counts.sum(0) for table in tables), expected)


def test_an_artefact_of_an_earlier_version_says_which_verb_makes_the_table(tmp_path):
    with pytest.raises(ArtifactError, match=r"earlier version.*Make it again: `qaclims evaluate --out RUN`"):
        read_image_counts(str(tmp_path), remedy=REMEDY)


def test_a_table_without_the_images_labels_says_why_it_does_not_serve(tmp_path):
    _written(str(tmp_path), [1])
    path = tmp_path / IMAGE_COUNTS_FILE
    pq.write_table(pq.read_table(path).drop_columns(["labelled"]), path)
    with pytest.raises(ArtifactError, match=r"did not keep what images are labelled with.*Make it again: `qaclims"):
        read_image_counts(str(tmp_path), remedy=REMEDY)


def test_a_broken_table_says_so(tmp_path):
    (tmp_path / IMAGE_COUNTS_FILE).write_bytes(b"PAR1 nothing")
    with pytest.raises(ArtifactError, match=r"cannot be read.*Make it again"):
        read_image_counts(str(tmp_path), remedy=REMEDY)


def test_figures_are_read_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(image_counts, "_IMAGES_AT_ONCE", 2)
    rows = {name: [(0, 1, 2, 3, 0), (label, 4, 5, 6, 1)] for name, label in (("b", 1), ("a", 2), ("c", 1))}
    figures = [CountedFigure(name, 0.5, rows.items()) for name in ("fixed", "label_free", "best")]
    write_image_counts(str(tmp_path), figures, NAMES)
    whole = read_image_counts(str(tmp_path), remedy=REMEDY)
    assert list(whole) == ["fixed", "label_free", "best"]
    found = read_image_counts(str(tmp_path), remedy=REMEDY, only=("best", "other"))
    assert list(found) == ["best"] and found["best"].image_ids == ("a", "b", "c")
    assert found["best"].counts.tolist() == [
        [[1, 2, 3], [0, 0, 0], [4, 5, 6]],
        [[1, 2, 3], [4, 5, 6], [0, 0, 0]],
        [[1, 2, 3], [4, 5, 6], [0, 0, 0]],
    ]
    assert np.array_equal(whole["best"].counts, found["best"].counts)
    assert found["best"].counts.sum(0).dtype == np.int64, "sums over many images need 64 bits"


def test_no_scored_image_gives_an_empty_table(tmp_path):
    write_image_counts(str(tmp_path), [CountedFigure("fixed", 0.5, [])], NAMES)
    assert read_image_counts(str(tmp_path), remedy=REMEDY) == {}
