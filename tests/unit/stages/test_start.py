"""`qaclims start`: what it finds, chooses and writes; nothing is trained."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from qaclims_ray.errors import ConfigError, DataError
from qaclims_ray.models.known_weights import weight_named
from qaclims_ray.presets.small import LITE2, MOBILENET
from qaclims_ray.presets.stored import read_run
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import with_overrides
from qaclims_ray.stages import start_clock, start_machine
from qaclims_ray.stages.local_weights import LocalBackbone, LocalClip, local_clip
from qaclims_ray.stages.requests import StartArguments
from qaclims_ray.stages.start import ReadyRun, changed_from_defaults, prepare_start
from qaclims_ray.stages.start_clock import Pace, estimated_seconds, measure_pace
from qaclims_ray.stages.start_machine import Machine
from qaclims_ray.stages.start_plan import choose_run
from qaclims_ray.stages.start_survey import Survey, survey_folder
from qaclims_ray.systems.needs import needs_classifier
from tests.unit.data.tiny_data_sets import image_bytes

BOTH = (
    LocalBackbone(LITE2, Path("/w/lite2.pth"), "tf_efficientnet_lite2"),
    LocalBackbone(MOBILENET, Path("/w/mobile.safetensors"), "mobilenetv2-float16"),
)
SMALL = Machine(2, 8.0, (), 0.0, BOTH)


def photographs(root: Path, count: int = 30, table: str = "tags.csv") -> Path:
    root.mkdir(exist_ok=True)
    rows = ["image,labels"]
    for number in range(count):
        (root / f"{number}.jpg").write_bytes(image_bytes(number, (200, 150)))
        rows.append(f"{number}.jpg,{'horse;person' if number % 3 == 0 else 'person' if number % 3 == 1 else 'cat'}")
    (root / table).write_text("\n".join(rows))
    return root


def survey_of(root: Path) -> Survey:
    return survey_folder(with_overrides(preset("folder"), {"data.root": str(root)}).data)


def test_the_survey_says_classes_sizes_pairs_and_takes_the_only_table(tmp_path: Path) -> None:
    survey = survey_of(photographs(tmp_path / "p"))
    text = "\n".join(survey.lines())
    assert survey.data.label_file == str(tmp_path / "p" / "tags.csv")
    assert "30 photographs, of 200 x 150 pixels" in text
    assert "3 classes, by photographs: cat 10, horse 10, person 20" in text
    assert "horse is with person on 10 of its 10 photographs" in text
    assert (survey.trained, survey.held_out) == (24, 6)


def test_two_tables_are_not_guessed_between(tmp_path: Path) -> None:
    photographs(tmp_path / "p")
    (tmp_path / "p" / "other.csv").write_text("a,b\n")
    with pytest.raises(DataError, match=r"may be one: name it in data.label_file \(--data.label-file\)"):
        survey_of(tmp_path / "p")


def test_faults_come_in_one_report(tmp_path: Path) -> None:
    photographs(tmp_path / "p")
    (tmp_path / "p" / "3.jpg").write_bytes(b"no picture")
    (tmp_path / "p" / "unlisted.jpg").write_bytes(image_bytes(90))
    with pytest.raises(DataError, match=r"(?s)2 faults.*unlisted.*unreadable image"):
        survey_of(tmp_path / "p")


def test_so_few_that_none_is_held_out_are_shown_to_the_final_network(tmp_path: Path) -> None:
    survey = survey_of(photographs(tmp_path / "p", 6))
    assert survey.data.test_split == "all" and survey.held_out == 6 == survey.trained
    assert "too few photographs to hold any out" in choose_run(survey, SMALL).reasons[-1]


def test_splits_are_taken_by_the_names_that_the_folder_has_for_them(tmp_path: Path) -> None:
    for split, count in (("Training", 6), ("valid", 2)):
        for number in range(count):
            folder = tmp_path / "p" / split / ("cat" if number % 2 else "dog")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{split}{number}.jpg").write_bytes(image_bytes(number + len(split), (120, 100)))
    survey = survey_of(tmp_path / "p")
    assert (survey.data.train_split, survey.data.test_split) == ("Training", "valid")
    assert (survey.trained, survey.held_out, len(survey.gathered.images)) == (6, 2, 8)


@pytest.fixture
def thirty(tmp_path: Path) -> Survey:
    return survey_of(photographs(tmp_path / "p"))


def test_the_choice_follows_photographs_and_machine(thirty: Survey) -> None:
    chosen = choose_run(thirty, SMALL)
    config = chosen.config
    assert config.cam_net.backbone == "tf_efficientnet_lite2" and "the best network" in chosen.reasons[0]
    assert (config.augment.crop_px, config.segmentation.crop.crop_px) == (192, 128), "photographs of 200 pixels"
    assert (config.classifier.optim.epochs, config.segmentation.optim.epochs) == (40, 120), (
        "few photographs, many passes"
    )
    assert config.masks.steps == ("irn", "crf") and not config.cluster.use_gpu and config.systems == ("baseline",)


def test_a_quick_look_learns_the_last_layer_alone_and_takes_smaller_crops(thirty: Survey) -> None:
    chosen, usual = choose_run(thirty, SMALL, is_quick=True), choose_run(thirty, SMALL).config
    quick = chosen.config
    assert (quick.classifier.train_scope, usual.classifier.train_scope) == ("head", "full")
    assert quick.classifier.optim.lr * quick.classifier.optim.head_lr_factor == pytest.approx(0.01)
    assert "classifier 40 (its last layer alone), final network 60 (a quick look)" in chosen.reasons[2]
    assert (quick.masks.steps, quick.cams.scales) == (("crf",), (1.0, 0.5))
    assert quick.segmentation.crop.crop_px == 96 < usual.segmentation.crop.crop_px
    assert quick.segmentation.optim.lr == 2 * usual.segmentation.optim.lr


def test_a_quick_look_from_random_weights_learns_all_layers(thirty: Survey) -> None:
    config = choose_run(thirty, Machine(2, 8.0, (), 0.0, ()), is_quick=True).config
    assert (config.classifier.train_scope, config.classifier.optim.epochs) == ("full", 10)


def test_a_gpu_is_used_and_many_photographs_without_one_take_the_faster_network(
    thirty: Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Survey, "trained", 5000)
    chosen = choose_run(thirty, SMALL)
    assert chosen.config.cam_net.backbone == "mobilenetv2_100" and "fastest" in chosen.reasons[0]
    assert (chosen.config.classifier.optim.epochs, chosen.config.segmentation.optim.epochs) == (8, 10)
    config = choose_run(thirty, Machine(8, 64.0, ("a GPU",), 80.0, BOTH)).config
    assert config.cam_net.backbone == "tf_efficientnet_lite2"
    assert config.cluster.use_gpu and (config.cams.gpus_per_actor, config.masks.gpus_per_actor) == (1.0, 1.0)


def test_weights_that_are_named_must_be_known_and_there(thirty: Survey, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file of weights"):
        choose_run(thirty, SMALL, weights=str(tmp_path / "absent.pth"))
    (tmp_path / "own.pth").write_bytes(b"w")
    with pytest.raises(ConfigError, match="no file of weights that is known: expected one of tf_efficientnet_lite2"):
        choose_run(thirty, SMALL, weights=str(tmp_path / "own.pth"))


def test_without_weights_it_starts_at_random(thirty: Survey) -> None:
    chosen = choose_run(thirty, Machine(2, 8.0, (), 0.0, ()))
    assert chosen.config.cam_net.weights == "" and "random weights" in chosen.reasons[0]


def test_a_clip_alone_gives_maps_without_training(thirty: Survey, tmp_path: Path) -> None:
    clip = LocalClip("ViT-B-16-quickgelu", tmp_path / "clip.safetensors", "clip-vit-b-16")
    machine = Machine(2, 8.0, (), 0.0, (), clip)
    config, reasons = choose_run(thirty, machine)
    assert (config.systems, config.masks.steps) == (("patch_text",), ("crf",))
    assert (config.clip.model, config.clip.weights) == ("ViT-B-16-quickgelu", str(clip.path))
    assert not needs_classifier(config) and not config.clip.mask_adapted
    text = "\n".join(reasons)
    assert "without training" in text and "classifier" not in text and "IRN" not in text
    assert "ViT-B-16-quickgelu (CLIP)" in "\n".join(machine.lines())
    seconds = estimated_seconds(config, thirty, Pace(1.0, 0.3, 0.5, 40.0), machine)
    assert seconds["classifier"] == 0 < seconds["maps"]
    assert choose_run(thirty, replace(SMALL, clip=clip)).config.systems == ("baseline",)


def test_the_clip_of_this_machine_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QACLIMS_WEIGHTS", str(tmp_path))
    for name in ("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    assert local_clip() is None
    for weight in ("clip-vit-l-14", "clip-vit-b-16"):
        known = weight_named(weight)
        assert known is not None
        (tmp_path / known.files[0].name).write_bytes(b"w")
        found = local_clip()
        assert found is not None and found.weight == weight, "the smaller one is taken where both are here"


def test_the_file_holds_the_run_and_little_else(thirty: Survey, tmp_path: Path) -> None:
    config = choose_run(thirty, SMALL).config
    values = changed_from_defaults(config)
    (tmp_path / "run.json").write_text(json.dumps(values))
    assert read_run(str(tmp_path / "run.json")) == config
    assert "corpus" not in values and "tracking" not in values and values["data"]["dataset"] == "folder"


def test_the_clock_times_the_network_and_the_crf(thirty: Survey) -> None:
    config = choose_run(thirty, SMALL).config
    config = with_overrides(config, {"augment.crop_px": 64})
    pace = measure_pace(config, thirty, SMALL, seconds=0.0)
    assert pace.train_s > pace.forward_s > 0 < pace.crf_s


def test_more_passes_and_more_photographs_take_longer(thirty: Survey) -> None:
    config, pace = choose_run(thirty, SMALL).config, Pace(1.0, 0.3, 0.5)
    parts = estimated_seconds(config, thirty, pace, SMALL)
    assert set(parts) == {"classifier", "maps", "masks", "final network", "the rest"}
    assert parts["classifier"] == pytest.approx(24 * 40 * 192**2 / 1e6)
    longer = estimated_seconds(with_overrides(config, {"segmentation.optim.epochs": 240}), thirty, pace, SMALL)
    assert longer["final network"] > 1.5 * parts["final network"]
    assert (
        estimated_seconds(with_overrides(config, {"masks.steps": ["crf"]}), thirty, pace, SMALL)["masks"]
        < parts["masks"]
    )


@pytest.fixture
def quick_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_machine, "this_machine", lambda: SMALL)
    monkeypatch.setattr(start_clock, "measure_pace", lambda *_: Pace(1.0, 0.3, 0.5))


def started(tmp_path: Path, **settings: object) -> tuple[str, ReadyRun]:
    told = io.StringIO()
    asked = StartArguments(folder=str(tmp_path / "p"), out=str(tmp_path / "runs" / "mine"), **settings)
    ready = prepare_start(asked, Console(file=told, width=300))
    return told.getvalue(), ready


def test_it_writes_a_file_that_a_person_may_change_and_takes_the_changed_one(tmp_path: Path, quick_look: None) -> None:
    photographs(tmp_path / "p")
    text, ready = started(tmp_path)
    file = tmp_path / "runs" / "mine.json"
    assert f"written  {file}" in text and read_run(str(file)) == ready.config and "takes roughly" in text
    assert not (tmp_path / "runs" / "mine").exists(), "nothing ran"
    values = json.loads(file.read_text())
    values["seed"] = 5
    file.write_text(json.dumps(values))
    text, ready = started(tmp_path)
    assert ready.config.seed == 5 and "is there already and says otherwise: it is taken as it is" in text
    values["data"]["root"] = "/elsewhere"
    file.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"is the file of a run on /elsewhere: give another folder with --out"):
        started(tmp_path)


def test_an_absent_folder_is_told_with_the_one_that_may_be_meant(tmp_path: Path) -> None:
    (tmp_path / "pp").mkdir()
    with pytest.raises(DataError, match=r"there is no folder .*/p: .*`qaclims start DIR`; did you mean .*/pp\?"):
        started(tmp_path)
    assert not (tmp_path / "runs").exists()
