"""Files of a run folder that are cut short, emptied or another file altogether: one clear line, whatever the verb.

A finished run is made once. Each test damages one of its files in one way, runs a verb that reads it, and puts it back.
"""

import dataclasses
import functools
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from PIL import Image
from rich.console import Console

from qaclims_ray.data import storage
from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.data.images import load_image
from qaclims_ray.data.manifest import ImageRecord, Manifest, manifest_artifact, read_manifest, write_manifest
from qaclims_ray.data.whole_files import CURVES_NAME, MARK_NAME
from qaclims_ray.errors import QaclimsError
from qaclims_ray.evaluation.image_counts import CountedFigure, write_image_counts
from qaclims_ray.miniature.vocabulary import CLASSES
from qaclims_ray.models.clip.frozen import FrozenClip
from qaclims_ray.models.clip.prompts import initial_prompts, prompt_template, save_prompts
from qaclims_ray.models.generators.mask_generator import build_mask_generator, save_mask_generator
from qaclims_ray.presets.table import preset
from qaclims_ray.report import page
from qaclims_ray.run_config import to_dict, with_overrides
from qaclims_ray.segmentation.networks.network import build_segmentation_network, save_segmentation_network
from qaclims_ray.stages import prompt_readings, prompts
from qaclims_ray.stages.compare import run_compare
from qaclims_ray.stages.evaluate import Evaluation, read_evaluation, scoring_settings
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.predict import _predictor, _Target
from qaclims_ray.stages.prompt_readings import load_prompt_clip
from qaclims_ray.stages.prompts import run_read_prompts
from qaclims_ray.stages.refine import read_pseudo_masks
from qaclims_ray.stages.requests import CompareArguments, PredictArguments, PromptArguments
from qaclims_ray.stages.run_folder import load_config
from qaclims_ray.stages.segment import Segmentation, read_segmentation
from qaclims_ray.systems.table import system_config
from qaclims_ray.training.group import read_curves
from tests.finished_artifacts import finished
from tests.unit.stages.test_results import META, scores

JSON_DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda whole: whole[: len(whole) // 2],
    "cut by a byte": lambda whole: whole.rstrip()[:-1],
    "empty": lambda whole: b"",
    "blank": lambda whole: b" \n",
    "null": lambda whole: b"null",
    "a list": lambda whole: b"[1, 2]",
    "a list of objects": lambda whole: b"[" + whole + b"]",
    "a text": lambda whole: b'"text"',
    "a number": lambda whole: b"3",
    "another object": lambda whole: b'{"other": 1}',
    "an empty object": lambda whole: b"{}",
    "nulls inside": lambda whole: json.dumps(dict.fromkeys(json.loads(whole))).encode(),
    "lists inside": lambda whole: json.dumps({name: [1] for name in json.loads(whole)}).encode(),
    "texts inside": lambda whole: json.dumps(dict.fromkeys(json.loads(whole), "x")).encode(),
    "binary": lambda whole: bytes(range(256)),
    "zeros": lambda whole: bytes(len(whole)),
    "another encoding": lambda whole: b'{"name": "caf\xe9"}',
    "nested without end": lambda whole: b"[" * 100_000,
    "a number without end": lambda whole: b'{"name": ' + b"9" * 10_000 + b"}",
}
OTHER_DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    name: JSON_DAMAGES[name] for name in ("cut short", "empty", "binary", "zeros", "a list")
}
SYSTEM = "semples"
CONFIG, MANIFEST = "config.json", "manifest/manifest.parquet"
REPORT, TRACKING = "report/report.json", "tracking.json"
NETWORK = f"networks/{SYSTEM}"
CLASSIFIER_FILES = ("classifier/meta.json", "classifier/network.json", "classifier/network.safetensors")
NETWORK_FILES = (f"{NETWORK}/meta.json", f"{NETWORK}/network.json", f"{NETWORK}/network.safetensors")
FINAL_FILES = tuple(f"segmentation/{SYSTEM}/{name}" for name in ("meta.json", "network.json", "network.safetensors"))
PROMPT_FILES = (f"{NETWORK}/prompts/prompts.json", f"{NETWORK}/prompts/prompts.safetensors")
SCORE_FILES = tuple(f"{folder}/{SYSTEM}/scores.json" for folder in ("evaluations", "masks", "predictions"))
COUNTS = f"evaluations/{SYSTEM}/image_counts.parquet"
CURVE_FILES = (f"{NETWORK}/{CURVES_NAME}", f"segmentation/{SYSTEM}/{CURVES_NAME}")
READS: dict[str, tuple[str, ...]] = {
    "compare": (
        CONFIG,
        REPORT,
        COUNTS,
        f"evaluations/{SYSTEM}/meta.json",
        f"{NETWORK}/meta.json",
        "manifest/meta.json",
    ),
    "predict": (CONFIG, MANIFEST, "manifest/meta.json", *CLASSIFIER_FILES, *NETWORK_FILES),
    "predict by the final network": (CONFIG, MANIFEST, *FINAL_FILES),
    "prompts": (CONFIG, MANIFEST, *PROMPT_FILES, TRACKING),
    "report": (*SCORE_FILES, *CURVE_FILES),
    "preset": (CONFIG,),
}
"""Verb -> the files of a run folder that it reads."""
MAY_BE = {
    **dict.fromkeys(CURVE_FILES, "an empty object"),
    **dict.fromkeys(SCORE_FILES[1:], "nulls inside"),
}
"""What these files may hold: no curve, and nothing that was scored."""
HARMLESS = {REPORT: "are not compared", TRACKING: "", **dict.fromkeys(CURVE_FILES, "left out")}
"""Files whose loss costs nothing that was asked for -> the word about it."""


def _complete(uri: str, kind: str, settings: Any = None, **inputs: str) -> str:
    return finished(Artifact(uri=uri, kind=kind, settings=settings or {}, inputs=inputs, verb="")).fingerprint


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> RunLayout:
    """A finished run as it lies on disk."""
    folder = tmp_path_factory.mktemp("damaged")
    layout = RunLayout(str(folder / "run"))
    config = with_overrides(preset("miniature"), {"systems": ["baseline", SYSTEM]})
    storage.write_bytes(layout.config, json.dumps(to_dict(config)).encode())
    Image.new("RGB", (32, 32), (90, 120, 40)).save(folder / "image.png")
    record = ImageRecord("image", str(folder / "image.png"), 32, 32, (0,), splits=("train", "val", "test"))
    write_manifest(Manifest(CLASSES, (record,)), manifest_artifact(layout.manifest, {}))
    for uri in (layout.classifier, layout.network(SYSTEM)):
        save_mask_generator(build_mask_generator(config.cam_net, len(CLASSES)), uri)
        storage.write_bytes(storage.join(uri, CURVES_NAME), b'{"1": {"loss": 0.5}}')
    clip = load_prompt_clip(config)
    template = prompt_template(clip, length=1)
    vectors = initial_prompts(clip, len(CLASSES), 1, init="vocabulary", generator=torch.Generator().manual_seed(0))
    save_prompts(
        layout.prompts(SYSTEM), vectors, template=template, class_names=CLASSES, clip_fingerprint=clip.fingerprint()
    )
    for uri, kind in ((layout.classifier, "classifier"), (layout.network(SYSTEM), "semples")):
        _complete(uri, kind)
    resolved = system_config(config, SYSTEM)
    figures = [CountedFigure(name, 0.1, [("image", [(1, 40, 50, 60, 1)])]) for name in ("fixed", "label_free", "best")]
    write_image_counts(layout.evaluation(SYSTEM), figures, CLASSES)
    seed = dataclasses.asdict(scores(0.5))
    for uri, content in (
        (layout.evaluation(SYSTEM), dataclasses.asdict(Evaluation(scores(0.5), None))),
        (layout.masks(SYSTEM), {"scores": seed}),
        (layout.predictions(SYSTEM), dataclasses.asdict(Segmentation(scores(0.5), None))),
    ):
        storage.write_bytes(storage.join(uri, "scores.json"), json.dumps(content).encode())
    _complete(layout.evaluation(SYSTEM), "evaluation", scoring_settings(resolved.scoring))
    final = dataclasses.replace(resolved.segmentation.net, weights="random")
    save_segmentation_network(build_segmentation_network(final, len(CLASSES) + 1), layout.segmentation(SYSTEM))
    storage.write_bytes(storage.join(layout.segmentation(SYSTEM), CURVES_NAME), b'{"1": {"loss": 0.5}}')
    _complete(layout.segmentation(SYSTEM), "segmentation")
    storage.write_bytes(f"{layout.out}/{REPORT}", b'{"environment": {"packages": {"ray": "2"}}}')
    storage.write_bytes(f"{layout.out}/{TRACKING}", b'{"store": "x", "experiment": "y", "run_id": "z"}')
    return layout


def _compare(layout: RunLayout) -> None:
    run = f"{layout.out}:{SYSTEM}"
    other = Path(layout.out).with_name("other")
    if not other.exists():
        storage.upload_tree(layout.out, str(other))
    run_compare(CompareArguments((run, f"{other}:{SYSTEM}"), resamples=100))


def _predict(layout: RunLayout, network: Literal["cam", "final"]) -> None:
    """Predict one image in this process, as the actors of `predict` do."""
    arguments = PredictArguments(
        run=layout.out, images=(), out=str(Path(layout.out).with_name("predicted")), network=network
    )
    config = system_config(load_config(layout.out), SYSTEM)
    actor, kwargs = _predictor(config, layout, SYSTEM, arguments)
    manifest = read_manifest(layout.manifest)
    uri = manifest.records[0].image_uri
    work = actor(**kwargs, config=config, arguments=arguments, classes=manifest.classes)
    assert work([(_Target("image", uri, None), load_image(uri))])[0].row["image"] == uri


def _read_results(layout: RunLayout) -> None:
    """Read what the report shows, as `report` does."""
    read_evaluation(layout.evaluation(SYSTEM))
    read_pseudo_masks(layout.masks(SYSTEM), META)
    read_segmentation(layout.predictions(SYSTEM))
    for uri in (layout.network(SYSTEM), layout.segmentation(SYSTEM)):
        read_curves(uri)


VERBS: dict[str, Callable[[RunLayout], object]] = {
    "compare": _compare,
    "predict": lambda layout: _predict(layout, "cam"),
    "predict by the final network": lambda layout: _predict(layout, "final"),
    "prompts": lambda layout: run_read_prompts(PromptArguments(run=layout.out), Console(file=io.StringIO())),
    "report": _read_results,
    "preset": lambda layout: preset(layout.config),
}


def _cases() -> list[tuple[str, str, str]]:
    return [
        (verb, name, damage)
        for verb, names in READS.items()
        for name in names
        for damage in (JSON_DAMAGES if name.endswith(".json") else OTHER_DAMAGES)
        if damage != MAY_BE.get(name)
    ]


@pytest.mark.parametrize("verb", VERBS)
def test_an_undamaged_run_serves_every_verb(whole, verb):
    VERBS[verb](whole)


@functools.cache
def _clip() -> FrozenClip:
    return load_prompt_clip(preset("miniature"))


@pytest.fixture
def nothing_drawn(monkeypatch):
    """The undamaged run has its charts drawn; here none is, and the CLIP, which lies elsewhere, is loaded once."""
    monkeypatch.setattr(page, "figure_svg", lambda figure, name: "<svg></svg>")
    monkeypatch.setattr(prompt_readings, "figure_png", lambda figure, *, dpi: b"")
    monkeypatch.setattr(prompts, "load_prompt_clip", lambda config: _clip())


@pytest.mark.parametrize(("verb", "name", "damage"), _cases())
@pytest.mark.usefixtures("nothing_drawn")
def test_a_damaged_file_is_one_clear_line_or_passed_over_with_a_word(whole, verb, name, damage, caplog):
    path = Path(whole.out, name)
    content = path.read_bytes()
    path.write_bytes({**JSON_DAMAGES, **OTHER_DAMAGES}[damage](content))
    try:
        VERBS[verb](whole)
    except QaclimsError as error:
        message = str(error)
        assert name not in HARMLESS, message
        assert path.name in message or str(path.parent) in message, "it names the file"
        assert any(word in message for word in ("emove", "again", "Give")), message
    else:
        assert name in HARMLESS, "it was read as if it were whole"
        assert HARMLESS[name] in caplog.text
    finally:
        path.write_bytes(content)
        for mark in Path(whole.out).rglob(MARK_NAME):
            mark.unlink()
