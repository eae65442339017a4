"""The first look at the data, before weights, Ray and MLflow, and before anything is written."""

import json
import time
from pathlib import Path

import pytest

from qaclims_ray.commands.main import MISTAKE, run_verb
from qaclims_ray.errors import ConfigError, DataError
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import RunConfig, to_dict, with_overrides
from qaclims_ray.stages.first_look import look_first
from tests.unit.data.tiny_data_sets import image_bytes


def config_of(root: Path, words: str = "voc12 mobilenet", **settings: object) -> RunConfig:
    base = {"data.root": str(root), "cam_net.weights": "/nowhere/weights.safetensors", "cluster.use_gpu": False}
    return with_overrides(preset(words), {**base, **settings})


def test_a_wrong_folder_is_told_within_a_second_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "pictures", tmp_path / "run"
    line = ["voc12", "mobilenet", "--data.dataset", "folder", "--data-root", str(root), "--out", str(out)]
    line += ["--cam-net.weights", "/nowhere/weights.safetensors"]
    run_verb("run", line)  # what it imports is another matter
    started = time.process_time()
    assert run_verb("run", line) == MISTAKE
    assert time.process_time() - started < 1
    assert f"DataError: there is no folder {root} (data.root, --data-root)" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_table_under_another_name_is_pointed_at(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(image_bytes())
    (tmp_path / "tags of march.csv").write_text("image,labels\n1.jpg,cat\n")
    with pytest.raises(DataError, match=r'"tags of march.csv" may be one: name it .* \(--data.label-file\)'):
        look_first(config_of(tmp_path, **{"data.dataset": "folder"}), str(tmp_path / "run"))


def test_labels_that_teach_nothing_are_told(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(image_bytes(number))
    (tmp_path / "labels.csv").write_text("image,labels\n0,cat\n1,cat\n2,cat\n")
    with pytest.raises(DataError, match="the labels tell no two images apart"):
        look_first(config_of(tmp_path, **{"data.dataset": "folder"}), str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("words", "message"),
    [("voc12", "there is no VOC data set"), ("coco14", "there is no COCO"), ("bcss_wsss", "there is no ")],
)
def test_every_layout_is_looked_for(tmp_path: Path, words: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        look_first(config_of(tmp_path, words), str(tmp_path / "run"))


def test_no_folder_at_all_is_a_mistake_of_the_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--data-root"):
        look_first(preset("voc12"), str(tmp_path))


def test_what_an_earlier_call_has_read_is_not_looked_at_again(tmp_path: Path) -> None:
    config = config_of(tmp_path / "gone")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(to_dict(config)))
    look_first(config, str(tmp_path / "run"))
    with pytest.raises(DataError):
        look_first(with_overrides(config, {"data.limit": 5}), str(tmp_path / "run"))


def test_faults_of_pictures_are_told_before_networks_and_tracking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qaclims_ray.stages import opening, pipeline

    def too_early(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(opening, "try_networks", too_early)
    monkeypatch.setattr(pipeline, "open_tracker", too_early)
    root = tmp_path / "pictures"
    for number in range(6):
        (root / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        (root / "ab"[number % 2] / f"{number}.jpg").write_bytes(image_bytes(number))
    (root / "a" / "0.jpg").write_bytes(b"no picture")
    config = config_of(root, **{"data.dataset": "folder", "data.test_split": "train", "cam_net.weights": "timm"})
    with pytest.raises(DataError, match=r"unreadable image \(1\)"):
        pipeline.run_pipeline(config, str(tmp_path / "run"))
    assert not any(path.is_file() for path in (tmp_path / "run").rglob("*"))
