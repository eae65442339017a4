"""Reproduce the papers' findings on the miniature world, without Ray.

    python benchmarks/miniature_results.py --seeds 20 21 22 --cache runs/miniature_results.jsonl
    python benchmarks/miniature_results.py --cache runs/miniature_results.jsonl --table docs/results/miniature.md

For every seed it draws the data set, asks the VQA model, trains the classifier and every system in this process,
scores the CAMs, and appends one JSON line per (seed, system) to the cache, so that a run that is cut off goes on.
With ``--table`` it writes the tables from the cache and trains nothing.
"""

import argparse
import dataclasses
import functools
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.miniature_tables import write_tables
from qaclims_ray.cams.inference import compute_cams
from qaclims_ray.corpus import build
from qaclims_ray.corpus.questions import question_set
from qaclims_ray.data import artifacts
from qaclims_ray.data.images import load_image
from qaclims_ray.data.manifest import Manifest, manifest_artifact, write_manifest
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.data.splits import scored_images, training_images
from qaclims_ray.data.voc import read_voc
from qaclims_ray.evaluation.cooccurrence import CooccurrenceSums, cooccurrence_scores
from qaclims_ray.evaluation.sweep import ThresholdSweep, seed_scores, sweep_thresholds
from qaclims_ray.methods.classifier.config import CALIBRATED_DIR
from qaclims_ray.methods.classifier.method import CLASSIFIER
from qaclims_ray.methods.method import CamNetwork, Phase, Recipe, Sources, Trained, run_phases
from qaclims_ray.methods.table import method_of
from qaclims_ray.methods.training_clip import load_training_clip
from qaclims_ray.miniature import vocabulary
from qaclims_ray.miniature.dataset import write_dataset
from qaclims_ray.models.clip.frozen import FrozenClip
from qaclims_ray.models.clip.prompts import encode_prompts, load_prompts
from qaclims_ray.models.generators.mask_generator import load_mask_generator
from qaclims_ray.models.vqa.blip import load_vqa
from qaclims_ray.presets.table import preset
from qaclims_ray.report.prompt_reading import nearest_words
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.stages.train import PhaseWork
from qaclims_ray.systems.known import SYSTEMS
from qaclims_ray.systems.needs import source_of_cams
from qaclims_ray.systems.recipe import recipe_of, vqa_model
from qaclims_ray.systems.table import system_config, system_of
from qaclims_ray.text.bank import bank_artifact, build_bank, write_bank
from qaclims_ray.training.context import LocalContext

QA_CLIMS = "qa_clims"
UNCALIBRATED = "uncalibrated"
"""QA-CLIMS from the classifier as trained, to show what the calibrated start does."""


def main() -> None:
    """Parse the arguments; run or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[20, 21, 22])
    known = preset("miniature")
    trainable = [
        name
        for name, system in SYSTEMS.items()
        if method_of(system.method).has_network and source_of_cams(known, name) is None
    ]
    parser.add_argument("--systems", nargs="*", default=[*trainable, UNCALIBRATED])
    parser.add_argument("--cache", type=Path, required=True, help="JSON lines, one per seed and system")
    parser.add_argument("--processes", type=int, default=2, help="seeds computed at a time, one thread each")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="overrides, for choosing settings")
    parser.add_argument("--preset", default="miniature", choices=("miniature", "miniature_semples", "miniature_weaktr"))
    parser.add_argument("--work", type=Path, help="keep data, corpora and networks here, by seed; a later call goes on")
    parser.add_argument("--table", type=Path, help="write the tables from the cache to this file and stop")
    arguments = parser.parse_args()
    if arguments.table:
        write_tables(arguments.cache, arguments.table, arguments.seeds, preset=arguments.preset)
        return
    arguments.cache.parent.mkdir(parents=True, exist_ok=True)
    overrides = dict(item.split("=", 1) for item in arguments.set)
    config = with_overrides(preset(arguments.preset), {name: _value(text) for name, text in overrides.items()})
    with tempfile.TemporaryDirectory() as scratch, ProcessPoolExecutor(arguments.processes) as pool:
        work = arguments.work or Path(scratch)
        jobs = [
            pool.submit(run_seed, config, seed, arguments.systems, arguments.cache, work) for seed in arguments.seeds
        ]
        for job in jobs:
            job.result()


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def run_seed(config: RunConfig, seed: int, systems: list[str], cache: Path, work: Path) -> None:
    """Run the systems of one seed that are not in the cache yet."""
    done = {row["system"] for row in read_cache(cache) if row["seed"] == seed}
    todo = [name for name in systems if name not in done]
    if not todo:
        return
    torch.set_num_threads(1)
    run = LocalRun(with_overrides(config, {"seed": seed}), work / f"seed-{seed}")
    for name in todo:
        started = time.perf_counter()
        resolved = system_config(run.config, QA_CLIMS if name == UNCALIBRATED else name)
        row = {"seed": seed, "system": name, **_score(resolved, run.scored, str(run.network(name)))}
        row["seconds"] = time.perf_counter() - started
        if (prompts := run.prompts.get(name)) is not None:
            row["prompt_words"] = _prompt_words(resolved, run.clip, prompts)
        with open(cache, "a") as lines:
            lines.write(json.dumps(row) + "\n")
        print(f"seed {seed} {name:<28} best {row['miou_best']:.3f} fixed {row['miou_fixed']:.3f}", flush=True)


class LocalRun:
    """One seed's data and trained networks in a folder; each is made when it is first asked for."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        if not (folder / "data").is_dir():
            write_dataset(str(folder / "data"), num_images=config.data.num_images, seed=config.seed)
        data = dataclasses.replace(config.data, root=str(folder / "data"))
        manifest = read_voc(data, class_names=vocabulary.CLASSES, file_names=vocabulary.CLASSES)
        self.trained, self.scored = training_images(manifest, config.data), scored_images(manifest, config.data)
        write_manifest(manifest, manifest_artifact(str(folder / "manifest"), {}))
        self.clip = load_training_clip(recipe_of(config, CLASSIFIER), torch.device("cpu"))
        self.prompts: dict[str, Path] = {}
        """Folder of each system's last prompts, as far as its network was asked for."""
        self._used: dict[Path, float] = {}

    def cpu_seconds(self, name: str) -> float:
        """Return what a system's trainings took, with those that it starts from and its texts; made where missing."""
        self._used.clear()
        self.cam_network(name)
        return sum(self._used.values())

    def cam_network(self, name: str) -> CamNetwork:
        """Return what a system's CAMs are computed with, in evaluation mode, and how it wants its images."""
        system = system_of(self.config, name)
        method, cpu = method_of(system.method), torch.device("cpu")
        if method.frozen is None:
            net = self.config.cam_net
            trained = load_mask_generator(str(self.network(name)), cpu)
            found = CamNetwork(trained, net.image_mean, net.image_std)
        else:
            resolved = with_overrides(self.config, system.overrides)
            texts = _trained(self._bank(resolved)) if method.uses_texts else None
            sources = Sources(manifest=self.trained.fingerprint(), clip=self.config.clip.model, texts=texts)
            found = method.frozen(recipe_of(resolved, method), sources).load(cpu)
            assert isinstance(found, CamNetwork)
        found.network.eval()
        return found

    def network(self, name: str) -> Path:
        """Return the folder of a system's trained network."""
        system = system_of(self.config, QA_CLIMS if name == UNCALIBRATED else name)
        method = method_of(system.method)
        if method.is_classifier:
            return self.classifier()
        assert method.phases is not None
        resolved = with_overrides(self.config, system.overrides)
        calibrated = self.config.classifier.calibrate and name != UNCALIBRATED
        sources = Sources(
            manifest=self.trained.fingerprint(),
            clip=self.config.clip.model,
            classifier=_trained(self.classifier() / CALIBRATED_DIR if calibrated else self.classifier()),
            texts=_trained(self._bank(resolved)) if method.uses_texts else None,
            base=_trained(self.network(system.base)) if system.base else None,
        )
        recipe = recipe_of(resolved, method)
        outcome = run_phases(method.phases(recipe, sources), functools.partial(self._train, recipe))
        if outcome.prompts_uri:
            self.prompts[name] = Path(outcome.prompts_uri)
        return Path(outcome.network.uri)

    def classifier(self) -> Path:
        """Return the folder of the classifier."""
        assert CLASSIFIER.phases is not None
        recipe = recipe_of(self.config, CLASSIFIER)
        phase = next(CLASSIFIER.phases(recipe, Sources(manifest=self.trained.fingerprint())))
        return Path(self._train(recipe, phase).uri)

    def _train(self, recipe: Recipe, phase: Phase) -> Trained:
        key = artifacts.fingerprint_of([phase.kind, phase.settings, phase.inputs])
        folder = self.folder / f"{phase.kind}-{key}"

        def make() -> None:
            work = PhaseWork(phase, recipe, str(self.folder / "manifest"), self.config.data)
            work(LocalContext(f"{folder}.checkpoints"), lambda *_: None)
            Path(f"{folder}.checkpoints/latest").rename(folder)

        self._made(folder, make)
        return _trained(folder)

    def _made(self, place: Path, make: Callable[[], object]) -> None:
        """Make what is missing, and note how many CPU seconds it took."""
        noted = Path(f"{place}.seconds")
        if not place.exists():
            started = time.process_time()
            make()
            noted.write_text(str(time.process_time() - started))
        self._used[place] = float(noted.read_text()) if noted.is_file() else 0.0

    def _bank(self, config: RunConfig) -> Path:
        folder = self.folder / f"bank-{artifacts.fingerprint_of([artifacts.plain(config.text), config.clip.model])}"
        corpus = self._corpus() if config.text.source == "qape" else None

        def make() -> None:
            bank = build_bank(corpus, self.trained, config.text, self.clip.encode_texts)
            artifact = bank_artifact(str(folder), {}, {})
            artifact.begin()
            write_bank(bank, artifact)
            artifact.complete(bank.summary())

        self._made(folder, make)
        return folder

    def _corpus(self) -> pd.DataFrame:
        path = self.folder / "corpus.parquet"
        self._made(path, lambda: pd.DataFrame(corpus_rows(self.config, self.trained)).to_parquet(path))
        return pd.read_parquet(path)


def _trained(folder: Path) -> Trained:
    """Name a result by its place: its folder's name holds all that it depends on."""
    return Trained(str(folder), str(folder))


def _prompt_words(config: RunConfig, clip: FrozenClip, folder: Path) -> dict[str, list[str]]:
    """Return the words nearest to each class's prompt."""
    stored = load_prompts(str(folder))
    words = [*vocabulary.STUFF, *vocabulary.CLASSES]
    with torch.no_grad():
        prompts = encode_prompts(clip, stored.vectors, stored.template)
        features = clip.encode_texts([config.text.template.format(word) for word in words])
    nearest = nearest_words(prompts, words, features, 3)
    return {
        name: [f"{word} {cosine:.2f}" for word, cosine in found]
        for name, found in zip(stored.class_names, nearest, strict=True)
    }


def read_cache(cache: Path) -> list[dict[str, Any]]:
    """Return the rows of the cache; an absent one is empty."""
    return [json.loads(line) for line in cache.read_text().splitlines()] if cache.is_file() else []


def corpus_rows(config: RunConfig, manifest: Manifest) -> list[dict[str, Any]]:
    """Ask the VQA model about images in this process; return the rows of the corpus."""
    settings, questions = config.corpus, question_set(config.corpus.questions)
    vqa = load_vqa(vqa_model(config), image_size=settings.image_size, device=torch.device("cpu"), dtype=torch.float32)

    def ask(images: torch.Tensor, asked: list[list[str]]) -> list[list[str]]:
        return vqa.answer(
            images,
            asked,
            num_beams=settings.num_beams,
            max_length=settings.max_length,
            min_length=settings.min_length,
            max_question_tokens=settings.max_question_tokens,
            questions_per_batch=settings.questions_per_batch or build.QUESTIONS_AT_ONCE.on_cpu,
        )

    rows: list[dict[str, Any]] = []
    for shard in build.plan_shards(manifest, settings.images_per_shard):
        decoded = build.decode_shard(shard, settings.image_size)
        rows += build.answer_shard(decoded, ask, questions, manifest.class_names, settings)
    return rows


def _score(config: RunConfig, manifest: Manifest, network: str) -> dict[str, Any]:
    net = load_mask_generator(network, torch.device("cpu")).eval()
    thresholds = sweep_thresholds(config.scoring, manifest.classes)
    sweep = ThresholdSweep(thresholds, len(manifest.class_names))
    sums = CooccurrenceSums(thresholds, range(len(manifest.class_names)))
    for start in range(0, len(manifest.records), 64):
        records = manifest.records[start : start + 64]
        cams = compute_cams(
            net,
            [load_image(record.image_uri) for record in records],
            [record.labels for record in records],
            [record.image_id for record in records],
            config.cams,
            config.cam_net.image_mean,
            config.cam_net.image_std,
        )
        for record, cam in zip(records, cams, strict=True):
            assert record.mask_uri and record.context_uri
            mask = load_mask(record.mask_uri)
            sweep.update(cam, mask, record.labels)
            sums.update(cam, mask, load_mask(record.context_uri))
    scores = seed_scores(sweep, config.fixed_threshold, manifest.classes)
    places = cooccurrence_scores(sums, scores.threshold_best, manifest.class_names)
    row = {k: v for k, v in dataclasses.asdict(scores).items() if k != "curve"}
    row["miou_by_threshold"] = dict(zip(scores.curve.thresholds[::5], scores.curve.miou[::5], strict=True))
    return row | {
        "coverage": places.coverage,
        "false_positive_context": places.false_positive_context,
        "false_positive_elsewhere": places.false_positive_elsewhere,
    }


if __name__ == "__main__":
    main()
