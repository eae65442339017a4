import dataclasses
import functools
import io
import json
import shutil
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import set_model_preprocess_cfg
from PIL import Image
from rich.console import Console

from qaclims_ray import cli
from qaclims_ray.corpus import table
from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.data.manifest import ImageRecord, Manifest, manifest_artifact, write_manifest
from qaclims_ray.data.shards import shard_name
from qaclims_ray.errors import ArtifactError, ConfigError, DataError
from qaclims_ray.miniature.vocabulary import CLASSES
from qaclims_ray.models.clip.frozen import FrozenClip
from qaclims_ray.models.clip.prompts import encode_prompts, initial_prompts, prompt_template, save_prompts
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import RunConfig, to_dict, with_overrides
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.prompt_readings import (
    default_words,
    load_prompt_clip,
    read_prompts,
    read_words,
    systems_with_prompts,
)
from qaclims_ray.stages.prompts import run_read_prompts
from qaclims_ray.stages.requests import PromptArguments
from qaclims_ray.tracking.mlflow_tracker import open_tracker
from tests.finished_artifacts import finished

WORDS = ("grass", "sky", "sheep", "lamp")


@functools.cache
def shipped_clip() -> FrozenClip:
    """The CLIP of the miniature preset."""
    return load_prompt_clip(preset("miniature"))


def prompts_folder(
    uri: str, clip: FrozenClip, *, word: str | None = None, class_names: tuple[str, ...] = CLASSES
) -> None:
    """Save prompts of one vector: a word's own embedding, so that it must be the nearest word, or random ones."""
    template = prompt_template(clip, length=1)
    vectors = initial_prompts(clip, len(class_names), 1, init="vocabulary", generator=torch.Generator().manual_seed(0))
    if word is not None:
        tokens = clip.tokenize([f"a photo of {word}."])[0]
        tower = getattr(clip.model, "text", clip.model)
        vectors = tower.token_embedding.weight[tokens[len(template.before)]].detach().expand_as(vectors)
    save_prompts(uri, vectors, template=template, class_names=class_names, clip_fingerprint=clip.fingerprint())


def manifest_of(folder: Path, labels: tuple[tuple[int, ...], ...], class_names: tuple[str, ...] = CLASSES) -> Manifest:
    records = []
    for number, own in enumerate(labels):
        pixels = torch.randint(0, 256, (16, 20, 3), generator=torch.Generator().manual_seed(number)).byte().numpy()
        path = folder / f"image_{number}.png"
        Image.fromarray(pixels).save(path)
        records.append(ImageRecord(path.stem, str(path), 20, 16, own, splits=("train", "val", "test")))
    return Manifest(class_names, tuple(records))


@pytest.fixture
def run(tmp_path: Path) -> tuple[RunConfig, RunLayout, Manifest]:
    """A miniature run as it lies on disk after training: system semples has prompts, semples_match none."""
    config = with_overrides(preset("miniature"), {"systems": ["baseline", "semples_match", "semples"]})
    layout = RunLayout(str(tmp_path / "runs" / "mini"))
    storage.write_bytes(layout.config, json.dumps(to_dict(config)).encode())
    manifest = manifest_of(tmp_path, ((0,), (), (1, 6), (1,)))
    write_manifest(manifest, manifest_artifact(layout.manifest, {}))
    prompts_folder(layout.prompts("semples"), shipped_clip(), word="grass")
    return config, layout, manifest


def shown_by(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_command_writes_words_maps_and_table(run, tmp_path: Path):
    config, layout, _ = run
    console = Console(file=io.StringIO(), width=120)
    run_read_prompts(PromptArguments(run=layout.out, top=3, out=str(tmp_path / "out")), console)
    content = json.loads((tmp_path / "out" / "prompts.json").read_text())
    assert content["system"] == "semples" and content["label"] == "SemPLeS"
    assert list(content["classes"]) == list(CLASSES)
    for found in content["classes"].values():
        assert len(found["nearest"]) == 3 and found["nearest"][0][0] == "grass"
        assert found["nearest"][0][1] == pytest.approx(1.0, abs=1e-4)
    clip = shipped_clip()
    dog, grass = clip.encode_texts([config.text.template.replace("{}", word) for word in ("dog", "grass")])
    assert content["classes"]["dog"]["own_text"] == pytest.approx(float(dog @ grass), abs=1e-4)
    shown = [(entry["image"], entry["class"]) for entry in content["images"]]
    assert shown == [("image_0", "aeroplane"), ("image_2", "bird")]  # by class, each image once
    assert content["images"][1]["manual"] == ["a photo of grass.", "a photo of bird."]
    assert Image.open(tmp_path / "out" / "prompts.png").size[0] > 300
    text = shown_by(console)
    assert "grass 1.00" in text and "own text" in text and str(tmp_path / "out") in text


def test_named_images_show_all_their_classes_beside_the_given_words(run, tmp_path: Path):
    _, layout, _ = run
    arguments = PromptArguments(run=layout.out, images=("image_2",), manual=("sky", "bird"), system="semples")
    reading = run_read_prompts(arguments, Console(file=io.StringIO()))
    assert [(image, name) for image, name, _ in reading.images] == [("image_2", "bird"), ("image_2", "sheep")]
    assert reading.images[0][2] == ["a photo of sky.", "a photo of bird."]
    assert reading.images[1][2] == ["a photo of sky.", "a photo of bird.", "a photo of sheep."]
    assert storage.exists(storage.join(layout.report, "prompts", "semples", "prompts.png"))


def test_a_class_name_is_no_manual_background(run, tmp_path: Path):
    config, layout, manifest = run
    prompts_folder(layout.prompts("semples"), shipped_clip(), word="sheep")
    reading = read_prompts(config, layout, "semples", manifest, shipped_clip(), words=WORDS, top=4)
    assert reading.nearest["bird"][0][0] == "sheep" and len(reading.nearest["bird"]) == 4
    manual = reading.images[1][2][0]
    assert manual == f"a photo of {next(word for word, _ in reading.nearest['bird'] if word != 'sheep')}."


def test_words_file_is_the_vocabulary(run, tmp_path: Path):
    _, layout, _ = run
    (tmp_path / "words.txt").write_text("lamp\n\n  grass \nlamp\n")
    reading = run_read_prompts(
        PromptArguments(run=layout.out, words=str(tmp_path / "words.txt")), Console(file=io.StringIO())
    )
    assert [word for word, _ in reading.nearest["dog"]] == ["grass", "lamp"]
    assert reading.vocabulary == "the given words (2)"


@pytest.mark.parametrize(
    ("content", "message"), [(b"\n  \n", "holds no word"), (b"\xff\xfe\x00", "no UTF-8"), (None, "there is no file")]
)
def test_bad_words_files_are_refused(tmp_path: Path, content: bytes | None, message: str):
    if content is not None:
        (tmp_path / "words.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_words(str(tmp_path / "words.txt"))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"system": "semples_match"}, ArtifactError, "semples_match has no learned prompts .* have some: semples$"),
        ({"system": "nosuch"}, ConfigError, "there is no system 'nosuch'"),
        ({"images": ("image_7",)}, DataError, r"no image 'image_7'.*image_3"),
        ({"images": ("image_1",)}, DataError, "image_1 shows no class"),
        ({"top": 0}, ConfigError, "--top is 0"),
        ({"run": "nowhere"}, ConfigError, "there is no run at"),
    ],
)
def test_mistakes_are_told(run, changes, error, message: str):
    _, layout, _ = run
    with pytest.raises(error, match=message):
        run_read_prompts(PromptArguments(**{"run": layout.out, **changes}), Console(file=io.StringIO()))


def test_a_run_without_prompts_says_what_to_train(run):
    config, layout, _ = run
    storage.remove_tree(layout.prompts("semples"))
    assert systems_with_prompts(config, layout) == []
    with pytest.raises(ArtifactError, match="No system of this run has any; train one that learns prompts"):
        run_read_prompts(PromptArguments(run=layout.out), Console(file=io.StringIO()))


def test_the_verb_ends_in_one_line(run, monkeypatch, capsys):
    _, layout, _ = run
    monkeypatch.setattr("sys.argv", ["qaclims", "prompts", "--run", layout.out, "--system", "baseline"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("qaclims prompts: ArtifactError: system baseline has no learned prompts")


def test_prompts_of_other_classes_are_refused(run):
    config, layout, manifest = run
    other = dataclasses.replace(manifest, class_names=tuple(reversed(CLASSES)))
    with pytest.raises(ArtifactError, match="train the system again"):
        read_prompts(config, layout, "semples", other, shipped_clip())


def test_broken_images_give_way_to_the_next(run, tmp_path: Path, caplog):
    config, layout, manifest = run
    (tmp_path / "image_2.png").write_bytes(b"broken")
    reading = read_prompts(config, layout, "semples", manifest, shipped_clip(), words=WORDS)
    assert [image for image, _, _ in reading.images] == ["image_0", "image_3"]
    assert "image_2.png" in caplog.text


def test_images_without_classes_leave_a_note(run, tmp_path: Path):
    config, layout, _ = run
    empty = manifest_of(tmp_path, ((), ()))
    reading = read_prompts(config, layout, "semples", empty, shipped_clip(), words=WORDS)
    assert not reading.picture and "shows a class" in reading.note and len(reading.nearest) == 8


def test_a_resnet_tower_has_words_and_a_note(run):
    config, layout, manifest = run
    vision = {"image_size": 32, "layers": (1, 1, 1, 1), "width": 8, "head_width": 8, "patch_size": None}
    text = {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(6, vision, text)
    set_model_preprocess_cfg(model, {"mean": (0.5,) * 3, "std": (0.25,) * 3})
    clip = FrozenClip(model, open_clip.SimpleTokenizer(context_length=16))
    prompts_folder(layout.prompts("semples"), clip, word="grass")
    reading = read_prompts(config, layout, "semples", manifest, clip, words=WORDS)
    assert reading.nearest["dog"][0][0] == "grass"
    assert not reading.picture and not reading.images and "need a plain vision transformer" in reading.note


def test_random_prompts_are_compared_with_every_word_of_the_world(run):
    config, layout, manifest = run
    clip = shipped_clip()
    prompts_folder(layout.prompts("semples"), clip)
    reading = read_prompts(config, layout, "semples", manifest, clip, top=5)
    _, words = default_words(config, layout, CLASSES)
    assert {"sheep", "lamb", "grass", "lawn", "lamp", "pasture"} < set(words)
    template = prompt_template(clip, length=1)
    vectors = initial_prompts(clip, 8, 1, init="vocabulary", generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        cosines = F.cosine_similarity(
            encode_prompts(clip, vectors, template)[3], clip.encode_texts([f"a photo of {word}." for word in words])
        )
    best = cosines.argsort(descending=True)[:5].tolist()
    assert [word for word, _ in reading.nearest["bus"]] == [words[index] for index in best]


def test_it_is_logged_into_the_run_whose_status_stays(run, empty_store):
    config, layout, _ = run
    shutil.copyfile(empty_store, Path(layout.out).with_name("mlflow.db"))
    identity = artifacts.fingerprint_of(to_dict(config))
    tracker = open_tracker(
        config.tracking, run_name="mini", out_dir=layout.records, identity=identity, system_metrics=False
    )
    tracker.finish("FAILED")
    console = Console(file=io.StringIO(), width=200)
    reading = run_read_prompts(PromptArguments(run=layout.out, top=2), console)
    from mlflow import MlflowClient

    handle = tracker.handle()
    assert handle is not None and handle.uri in shown_by(console)
    client = MlflowClient(handle.uri)
    assert client.get_run(handle.run_id).info.status == "FAILED"
    assert "prompts_semples.png" in [file.path for file in client.list_artifacts(handle.run_id)]
    rows = Path(client.download_artifacts(handle.run_id, "tables/prompts_semples.csv")).read_text().splitlines()
    assert rows[0] == "class,word,cosine,own_text" and len(rows) == 1 + 2 * len(CLASSES)
    name, word, cosine, own_text = rows[1].split(",")
    assert (name, word, float(cosine)) == ("aeroplane", *reading.nearest["aeroplane"][0])
    assert float(own_text) == reading.own_text["aeroplane"]


def test_a_moved_run_is_logged_into_where_its_store_lies_now(run, empty_store, tmp_path):
    config, layout, _ = run
    shutil.copyfile(empty_store, Path(layout.out).with_name("mlflow.db"))
    tracker = open_tracker(config.tracking, run_name="mini", out_dir=layout.records, identity="", system_metrics=False)
    tracker.finish("FINISHED")
    elsewhere = tmp_path / "elsewhere"
    Path(layout.out).parent.rename(elsewhere)
    moved = elsewhere / Path(layout.out).name
    console = Console(file=io.StringIO(), width=200)
    run_read_prompts(PromptArguments(run=str(moved), top=2), console)
    assert f"MLflow   sqlite:///{elsewhere}/mlflow.db" in shown_by(console)
    assert [file.name for file in elsewhere.glob("mlflow-artifacts/*/*/*/*.png")] == ["prompts_semples.png"]
    assert not Path(layout.out).parent.exists()

    (elsewhere / "mlflow.db").unlink()
    console = Console(file=io.StringIO(), width=200)
    run_read_prompts(PromptArguments(run=str(moved), top=2), console)
    assert "MLflow" not in shown_by(console) and not (elsewhere / "mlflow.db").exists()


def test_half_precision_reads_the_same_words(run):
    config, layout, manifest = run
    config = with_overrides(config, {"cluster.use_gpu": True, "cluster.precision": "bf16"})
    clip = load_prompt_clip(config)
    prompts_folder(layout.prompts("semples"), clip, word="lamp")
    reading = read_prompts(config, layout, "semples", manifest, clip, words=WORDS)
    assert all(nearest[0][0] == "lamp" for nearest in reading.nearest.values()) and reading.picture


def test_without_the_miniature_words_come_from_the_corpus_or_a_short_list(tmp_path: Path):
    config = with_overrides(preset("miniature"), {"data.dataset": "folder", "data.root": str(tmp_path)})
    layout = RunLayout(str(tmp_path / "run"))
    source, words = default_words(config, layout, ("train", "lake"))
    assert "CLIMS" in source and words[:4] == ["train", "lake", "tree", "river"] and words.count("lake") == 1
    row = {
        "image_id": "a", "class_id": 0, "class_name": "train", "question": "q", "kind": "k", "group": "g", "error": None
    }  # fmt: skip
    answers = (("rail", "ok"), ("zoo", "ok"), ("", "ok"), ("gone", "error"), ("zoo", "ok"), ("train", "ok"))
    rows = [
        {**row, "question_index": index, "raw_answer": answer, "answer": answer, "status": status}
        for index, (answer, status) in enumerate(answers)
    ]
    table.missing_shards(layout.corpus_table, 1, "plan")
    table.write_shard(storage.join(layout.corpus_table, shard_name(0)), rows, plan="plan")
    finished(Artifact(uri=layout.corpus, kind="corpus", settings={}, verb="corpus"))
    source, words = default_words(config, layout, ("train", "lake"))
    assert "corpus" in source and words == ["train", "lake", "zoo", "rail"]
