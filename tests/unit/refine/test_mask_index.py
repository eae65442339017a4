import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from qaclims_ray.data import storage
from qaclims_ray.data.images import save_label_map
from qaclims_ray.errors import ArtifactError, DataError
from qaclims_ray.refine.mask_index import (
    FILE_NAME,
    MaskRow,
    failed_row,
    mask_row,
    read_mask_index,
    summarise_masks,
    write_mask_index,
)

NAMES = ("cat", "dog", "potted plant")


def labels_of(rows: list[list[int]]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.uint8)


def some_rows() -> list[MaskRow]:
    return [
        mask_row("b", labels_of([[0, 1, 1, 255], [0, 0, 3, 255]]), (0, 2)),
        mask_row("a", labels_of([[0, 0], [0, 0]]), (1,)),
        mask_row("c", labels_of([[0, 0]]), ()),
        failed_row("d", "DataError: no such image"),
    ]


def test_row_counts_pixels():
    row = some_rows()[0]
    assert (row.image_id, row.mask, row.height, row.width) == ("b", "b.png", 2, 4)
    assert row.coverage == 3 / 6 and row.ignored == 2 / 8
    assert row.class_ids == (0, 2) and row.areas == (2 / 8, 1 / 8)
    assert row.status == "ok" and row.error == ""


def test_row_of_a_mask_that_is_all_ignored():
    row = mask_row("a", torch.full((3, 3), 255, dtype=torch.uint8), (1,))
    assert row.coverage == 0 and row.ignored == 1 and row.areas == (0.0,)


def test_row_of_the_last_class_before_ignore():
    row = mask_row("a", labels_of([[254, 0]]), (253,))
    assert row.areas == (0.5,) and row.coverage == 0.5 and row.ignored == 0


def test_labels_of_other_classes_are_refused():
    with pytest.raises(DataError, match=r"\[3\]"):
        mask_row("a", labels_of([[0, 3]]), (0, 1))
    with pytest.raises(DataError, match="once"):
        mask_row("a", labels_of([[0, 1]]), (0, 0))


@pytest.mark.parametrize("place", ["local", "memory"])
def test_what_is_written_is_read(place, tmp_path):
    uri = str(tmp_path / "masks") if place == "local" else f"memory://{tmp_path.name}/masks"
    rows = some_rows()
    write_mask_index(uri, rows, NAMES)
    found, names = read_mask_index(uri)
    assert names == NAMES
    assert found == sorted(rows, key=lambda row: row.image_id)
    first = storage.read_bytes(storage.join(uri, FILE_NAME))
    write_mask_index(uri, rows[::-1], NAMES)
    assert storage.read_bytes(storage.join(uri, FILE_NAME)) == first


def test_no_rows_make_an_index(tmp_path):
    write_mask_index(str(tmp_path), [], NAMES)
    assert read_mask_index(str(tmp_path)) == ([], NAMES)
    assert summarise_masks([], NAMES)["mean_coverage"] is None


def test_other_programs_read_the_index_as_a_plain_table(tmp_path):
    write_mask_index(str(tmp_path), some_rows(), NAMES)
    table = pq.read_table(tmp_path / FILE_NAME).to_pandas()
    assert table["image_id"].tolist() == ["a", "b", "c", "d"]
    assert table["status"].tolist() == ["ok", "ok", "ok", "error"]
    assert table["areas"][1].tolist() == [0.25, 0.125]


def test_rows_that_do_not_fit_are_not_written(tmp_path):
    row = some_rows()[0]
    for bad, message in (
        ([row, row], "b has 2 rows"),
        ([dataclasses.replace(row, class_ids=(0, 3))], "classes"),
        ([dataclasses.replace(row, areas=(0.1,))], "areas"),
        ([dataclasses.replace(row, coverage=1.5)], "shares"),
        ([dataclasses.replace(row, error="but why")], "status"),
        ([dataclasses.replace(row, mask="")], "status"),
        ([dataclasses.replace(failed_row("b", "why"), error="", mask="b.png", height=1, width=1)], "status"),
    ):
        with pytest.raises(DataError, match=message):
            write_mask_index(str(tmp_path), bad, NAMES)
    assert not (tmp_path / FILE_NAME).exists()


def rewritten(folder, change) -> None:
    write_mask_index(str(folder), some_rows(), NAMES)
    table = change(pq.read_table(folder / FILE_NAME))
    pq.write_table(table, folder / FILE_NAME)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop_columns(["areas"]),
        lambda table: table.replace_schema_metadata(None),
        lambda table: table.replace_schema_metadata({"class_names": "{"}),
        lambda table: table.replace_schema_metadata({"class_names": json.dumps([1, 2, 3])}),
        lambda table: table.replace_schema_metadata({"class_names": json.dumps(["cat"])}),
        lambda table: pa.concat_tables([table, table.slice(0, 1)]),
        lambda table: table.set_column(4, "coverage", pa.array(["x"] * len(table))),
        lambda table: table.set_column(4, "coverage", pa.array([float("nan")] * len(table))),
        lambda table: table.set_column(7, "areas", pa.array([[None]] * len(table), pa.list_(pa.float64()))),
        lambda table: table.set_column(0, "image_id", pa.array([None] * len(table), pa.string())),
    ],
)
def test_broken_tables_are_refused(change, tmp_path):
    rewritten(tmp_path, change)
    with pytest.raises(ArtifactError, match=r"index\.parquet"):
        read_mask_index(str(tmp_path))


def test_absent_and_broken_files_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="there is no mask index"):
        read_mask_index(str(tmp_path))
    write_mask_index(str(tmp_path), some_rows(), NAMES)
    content = (tmp_path / FILE_NAME).read_bytes()
    for broken in (content[:100], b"", b"no table"):
        (tmp_path / FILE_NAME).write_bytes(broken)
        with pytest.raises(ArtifactError, match="cannot be read"):
            read_mask_index(str(tmp_path))


def test_summary():
    summary = summarise_masks(some_rows(), NAMES)
    assert summary["num_images"] == 3 and summary["num_failed"] == 1
    assert summary["mean_coverage"] == pytest.approx(0.5 / 3)
    assert summary["mean_ignored"] == pytest.approx(0.25 / 3)
    assert summary["labelled_without_foreground"] == 1
    assert list(summary["classes"]) == list(NAMES)
    assert summary["classes"]["cat"] == {"images": 1, "shown": 1, "mean_area": 0.25}
    assert summary["classes"]["dog"] == {"images": 1, "shown": 0, "mean_area": 0.0}
    json.dumps(summary)


def test_summary_of_a_class_without_images():
    assert summarise_masks(some_rows(), (*NAMES, "sofa"))["classes"]["sofa"] == {
        "images": 0,
        "shown": 0,
        "mean_area": None,
    }


def test_masks_are_what_other_toolkits_read(tmp_path):
    """PIL, mode P, values as they are, VOC's colours: how segmentation toolkits load VOC masks."""
    labels = torch.arange(21, dtype=torch.uint8).view(3, 7).clone()
    labels[0, 0] = 255
    save_label_map(labels, str(tmp_path / "a.png"))
    row = mask_row("a", labels, tuple(range(20)))
    with Image.open(tmp_path / row.mask) as picture:
        assert picture.mode == "P" and picture.size == (row.width, row.height)
        values = np.array(picture)
        palette = np.array(picture.getpalette()).reshape(-1, 3)
    assert values.dtype == np.uint8 and np.array_equal(values, labels.numpy())
    assert palette[255].tolist() == [224, 224, 192]
    assert palette[[0, 1, 8, 15, 20]].tolist() == [[0, 0, 0], [128, 0, 0], [64, 0, 0], [192, 128, 128], [0, 64, 128]]
