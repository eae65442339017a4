"""Misuse of a run, as a user meets it: one clear line before long work starts, and nothing computed is lost.

What each reader and loader refuses is tested beside it, in tests/unit. Here the whole command is run.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from qaclims_ray.cluster import session
from qaclims_ray.cluster.rescue import rescue
from qaclims_ray.commands.main import MISTAKE, run_verb
from qaclims_ray.corpus.table import read_corpus
from qaclims_ray.data.artifacts import read_meta
from qaclims_ray.errors import ResourceError
from qaclims_ray.miniature.dataset import write_dataset
from qaclims_ray.models.generators.cam_net import CamNet, build_cam_net, save_cam_net
from qaclims_ray.training.checkpoint import Progress, epochs_kept, save_checkpoint
from tests.cluster.kills import MARK, mark_checkpoints
from tests.cluster.small_run import SMALL, as_flags, small_config

Run = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command that must end with exit code 2; return its one message."""

    def run(*arguments: str) -> str:
        assert run_verb("run", arguments, prog="qaclims") == MISTAKE
        message = capsys.readouterr().err
        assert message.startswith("qaclims: ") and "Traceback" not in message
        return message

    return run


# --- before Ray is even started


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(config: object) -> None:
        raise AssertionError("long work starts")

    monkeypatch.setattr(session, "ray_session", started)


@pytest.fixture
def bad(tmp_path: Path) -> dict[str, str]:
    """Places and files that cannot be used, by name."""
    regular = tmp_path / "regular_file"
    regular.write_text("not a folder")
    garbage = tmp_path / "garbage.pth"
    garbage.write_bytes(b"\x80\x02 no weights")
    other = tmp_path / "other.safetensors"
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "other.pth")
    other.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ")
    questions = tmp_path / "questions.json"
    questions.write_text("[{")
    # The drawn masks are numbered otherwise than VOC's, which does not matter here.
    write_dataset(tmp_path / "drawn", num_images=8, num_val=4, seed=1)
    return {
        "FILE": str(regular),
        "DRAWN": str(tmp_path / "drawn"),
        "GARBAGE": str(garbage),
        "OTHER": str(tmp_path / "other.pth"),
        "EMPTY": str(other),
        "QUESTIONS": str(questions),
        "ABSENT": str(tmp_path / "absent.pth"),
        "OUT": str(tmp_path / "out"),
    }


VOC = (
    "voc12",
    "--data-root",
    "DRAWN",
    "--data.train-split",
    "train",
    "--data.mask-check",
    "warn",
    "--out",
    "OUT",
    "--corpus.model",
    "miniature",
    "--cam-net.weights",
    "",
    "--goal",
    "seed",
)
MINI = ("miniature", "--out", "OUT", "--data.num-images", "8")
IRN = (*MINI, "--masks.steps", "irn")
MISTAKES = {
    "no preset and no run": (("--out", "OUT"), "ConfigError: there is no run at"),
    "nothing at all": ((), "ConfigError: name a preset"),
    "output is a file": (("miniature", "--out", "FILE"), "cannot be written"),
    "output below a file": (("miniature", "--out", "FILE/below/it"), "cannot be written.*Check the permissions"),
    "network weights absent": ((*MINI, "--cam-net.weights", "ABSENT"), "ModelError.*absent.pth"),
    "network weights garbage": ((*MINI, "--cam-net.weights", "GARBAGE"), "ModelError.*garbage.pth"),
    "network weights of another network": ((*MINI, "--cam-net.weights", "OTHER"), "ModelError.*other.pth"),
    "no such backbone": ((*MINI, "--cam-net.backbone", "resnet5"), "ConfigError.*no model 'resnet5'"),
    "impossible stride": ((*MINI, "--cam-net.output-stride", "8"), "cam_net.output_stride 4"),
    "CLIP folder absent": ((*MINI, "--clip.model", "ABSENT"), "ModelError.*absent.pth"),
    "CLIP weights garbage": ((*VOC, "--clip.model", "ViT-B-32-quickgelu", "--clip.weights", "GARBAGE"), "garbage.pth"),
    "CLIP weights absent": ((*VOC, "--clip.weights", "ABSENT"), "ModelError.*absent.pth"),
    "no such CLIP": ((*VOC, "--clip.model", "ViT-L-1", "--clip.weights", "openai"), "Near names"),
    "VQA folder absent": ((*MINI, "--corpus.model", "ABSENT"), "ModelError.*absent.pth"),
    "questions absent": ((*MINI, "--corpus.questions", "ABSENT"), "absent.pth"),
    "questions broken": ((*MINI, "--corpus.questions", "QUESTIONS"), "questions.json"),
    "more workers than a batch": ((*MINI, "--cluster.num-workers", "99"), "num_workers is 99"),
    "final network from nothing": ((*MINI, "--segmentation.net.weights", ""), "ConfigError.*net.weights is empty"),
    "final weights absent": ((*MINI, "--segmentation.net.weights", "ABSENT"), "ModelError.*absent.pth"),
    "final weights garbage": ((*MINI, "--segmentation.net.weights", "GARBAGE"), "ModelError.*garbage.pth"),
    "final network from another": (
        (*MINI, "--segmentation.net.weights", "classifier", "--segmentation.net.backbone", "resnet18"),
        "ConfigError.*segmentation.net.backbone is resnet18",
    ),
    "affinity weights absent": ((*IRN, "--masks.irn.weights", "ABSENT"), "ModelError.*absent.pth"),
    "affinity network from another": ((*IRN, "--masks.irn.backbone", "resnet18"), "masks.irn.backbone is resnet18"),
    "affinity batch too small": ((*IRN, "--masks.irn.optim.batch-size", "1"), "masks.irn.optim.batch_size is 1"),
    "final batch too small": ((*MINI, "--segmentation.optim.batch-size", "1"), "segmentation.optim.batch_size is 1"),
    "walk without small maps": ((*IRN, "--cams.store", "full"), "cams.store is full and cams.grid_stride 4"),
    "walk on another grid": ((*IRN, "--cams.grid-stride", "8"), "cams.grid_stride 8"),
    "masks without full maps": ((*MINI, "--cams.store", "grid"), "ConfigError.*cams.store is grid"),
    "SAM absent": ((*MINI, "--masks.steps", "sam", "--masks.sam.model", "ABSENT"), "ModelError.*absent.pth"),
    "bound without final networks": (
        (*MINI, "--systems", "fully_supervised", "--goal", "mask"),
        "goal to segmentation",
    ),
    "no such tracking store": ((*MINI, "--tracking.uri", "/some/folder"), "tracking.uri"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_it_is_said_before_anything_starts(mistake: str, bad: dict[str, str], refused: Run, no_ray: None) -> None:
    arguments, expected = MISTAKES[mistake]
    for name, value in bad.items():
        arguments = tuple(argument.replace(name, value) for argument in arguments)
    assert _found(expected, refused(*arguments))
    left = set(os.listdir(bad["OUT"])) if os.path.isdir(bad["OUT"]) else set()
    # The data is looked at before the weights, and what was read of it stays; no network is there, and no tracking.
    assert left <= {"config.json", "data", "manifest", "timings.json"}


def _found(expected: str, message: str) -> bool:
    return re.search(expected, message, re.DOTALL) is not None


# --- the data set


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_impossible_resources_are_refused_after_the_data(tmp_path: Path, refused: Run) -> None:
    """A private Ray has the GPUs of this machine and no more."""
    message = refused(*_arguments(tmp_path / "run", **{"cluster.num_workers": 4, "cluster.use_gpu": True}))
    assert _found(r"ResourceError.*this Ray has \d+ GPU, the run needs 4; lower .*cluster.use_gpu", message)
    assert not (tmp_path / "run" / "corpus").exists(), "nothing is asked yet"


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_all_faults_of_a_data_set_are_said_at_once_and_before_the_corpus(
    tmp_path: Path, refused: Run, shared_ray: None
) -> None:
    root = tmp_path / "voc"
    write_dataset(root, num_images=8, num_val=4, seed=1)
    truncated = root / "JPEGImages" / "mini_000001.png"
    truncated.write_bytes(truncated.read_bytes()[:300])
    (root / "JPEGImages" / "mini_000002.png").unlink()
    labels = json.loads((root / "image_labels.json").read_text())
    labels["mini_000003"] = ["aeroplane", "areoplane"]
    (root / "image_labels.json").write_text(json.dumps(labels))
    shutil.copy(root / "SegmentationClass" / "mini_000004.png", root / "SegmentationClass" / "mini_500000.png")
    (root / "SegmentationClass" / "mini_500001.png").write_bytes(b"")
    out = tmp_path / "out"
    flags = as_flags({**SMALL, "data.dataset": "voc12", "data.root": str(root)})
    message = refused("miniature", "--out", str(out), *flags)
    for name in ("mini_000001", "mini_000002", "mini_500001"):
        assert name in message
    assert "areoplane" in message and "aeroplane" in message
    assert not out.exists()


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_an_absent_test_split_is_said_before_any_training(tmp_path: Path, refused: Run, shared_ray: None) -> None:
    root = tmp_path / "voc"
    write_dataset(root, num_images=8, num_val=4, seed=1)
    (root / "ImageSets/Segmentation/val.txt").unlink()
    out = tmp_path / "out"
    # The drawn masks are numbered otherwise than VOC's, which does not matter here.
    own = {"goal": "segmentation", "data.dataset": "voc12", "data.mask_check": "warn", "data.root": str(root)}
    flags = as_flags({**SMALL, **own})
    message = refused("miniature", "--out", str(out), *flags)
    assert "belongs to split 'val'; its splits are ['train']" in message and "data.test_split" in message
    assert {path.name for path in out.iterdir()} <= {"config.json", "manifest", "timings.json"}


# --- a disk that is full, for real


def _mount(folder: Path, options: str) -> None:
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"file systems cannot be mounted here: {mounted.stderr.decode().strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, just large enough to be accepted at the start of a run."""
    folder = tmp_path / "disk"
    _mount(folder, "size=160m")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Ballast:
    """Fills a disk to the last byte as soon as a file is there, and again whatever is freed, until it is removed."""

    def __init__(self, disk: Path, pattern: str, is_there: Callable[[Path], bool] | None = None) -> None:
        self.path, self._disk, self._pattern = disk / "ballast", disk, pattern
        self._is_there = is_there or (lambda path: path.stat().st_size > 0)
        self._stop = threading.Event()
        self.kept: dict[Path, int] = {}
        self._thread = threading.Thread(target=self._fill)

    def _fill(self) -> None:
        while not self._stop.is_set() and not self._has_begun():
            time.sleep(0.002)
        with open(self.path, "wb", buffering=0) as handle:
            while not self._stop.wait(0.001):
                with contextlib.suppress(OSError):
                    while handle.write(b"x" * (1 << 20)):
                        pass

    def _has_begun(self) -> bool:
        with contextlib.suppress(FileNotFoundError):  # moved to its final name just now
            return any(self._is_there(path) for path in self._disk.glob(self._pattern))
        return False

    def __enter__(self) -> "Ballast":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.kept = {path: path.stat().st_mtime_ns for path in self._disk.glob(self._pattern)}
        self.path.unlink(missing_ok=True)

    def check_kept(self, folder: Path) -> None:
        """What was there when the disk was full was not written again; it has been put in its place since."""
        assert self.kept
        found = {path: (folder / path.name).stat().st_mtime_ns for path in self.kept}
        assert found == self.kept


def test_a_disk_that_is_too_small_is_said_at_once(tmp_path: Path, refused: Run, no_ray: None) -> None:
    disk = tmp_path / "disk"
    _mount(disk, "size=2m")
    try:
        assert "MiB free, the run needs at least 64 MiB" in refused("miniature", "--out", str(disk / "run"))
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_read_only_disk_is_said_at_once(tmp_path: Path, refused: Run, no_ray: None) -> None:
    disk = tmp_path / "disk"
    _mount(disk, "size=2m,ro")
    try:
        message = refused("miniature", "--out", str(disk / "run"))
        assert "cannot be written" in message and "Read-only file system" in message
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_temporary_folder_is_no_riddle(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    _mount(disk, "size=64k")
    network = build_cam_net(small_config().cam_net, num_classes=2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    try:
        with pytest.raises(ResourceError, match=r"checkpoint cannot be written to .*TMPDIR"):
            save_checkpoint(
                str(disk / "c"), lambda folder: save_cam_net(network, folder), optimizer, Progress(seed=0, settings="")
            )
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _checkpoint(folder: Path, network: CamNet, epochs: int, training: str) -> Path:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    folder.mkdir(parents=True)
    progress = Progress(seed=0, settings="", epochs_done=epochs)
    save_checkpoint(str(folder), lambda place: save_cam_net(network, place), optimizer, progress)
    (folder / "training.json").write_text(json.dumps({"training": training, "curves": {}}))
    return folder


def test_checkpoints_are_found_again_when_rays_list_of_them_is_broken(tmp_path: Path) -> None:
    network = build_cam_net(small_config().cam_net, num_classes=2)
    run = tmp_path / "run"
    for epoch in (1, 2, 3, 9):
        _checkpoint(run / f"checkpoint_{epoch}", network, epoch, "mine")
    _checkpoint(run / "checkpoint_4", network, 4, "another's")
    os.truncate(run / "checkpoint_3" / "network.safetensors", 1000)
    snapshot = run / "checkpoint_manager_snapshot.json"
    snapshot.write_text(json.dumps({"checkpoint_results": [{"checkpoint_dir_name": "checkpoint_2"}]}))
    assert rescue(str(tmp_path), "run", {"mine": 9}) == {}, "Ray knows them itself"
    found = {"mine": str(run / "checkpoint_2")}
    snapshot.write_text(json.dumps({"checkpoint_results": []}))
    assert rescue(str(tmp_path), "run", {"mine": 9}) == found, "stopped before Ray took note of any"
    snapshot.write_text("")
    assert rescue(str(tmp_path), "run", {"mine": 9}) == found
    assert not snapshot.exists()
    assert rescue(str(tmp_path), "run", {"mine": 9}) == found, "also after a second stop"
    assert rescue(str(tmp_path / "nothing"), "run", {"mine": 9}) == {}


def test_a_checkpoint_is_found_in_a_run_of_other_neighbours(tmp_path: Path) -> None:
    network = build_cam_net(small_config().cam_net, num_classes=2)
    for name, epoch, training in (("two", 1, "mine"), ("three", 2, "mine"), ("three", 3, "another's")):
        _checkpoint(tmp_path / name / f"checkpoint_{epoch}", network, epoch, training)
    known = {"checkpoint_results": [{"checkpoint_dir_name": "checkpoint_3"}]}
    (tmp_path / "three" / "checkpoint_manager_snapshot.json").write_text(json.dumps(known))
    found = {"mine": str(tmp_path / "three" / "checkpoint_2"), "another's": str(tmp_path / "three" / "checkpoint_3")}
    assert rescue(str(tmp_path), "four", {"mine": 9, "another's": 9, "new": 9}) == found
    assert rescue(str(tmp_path), "three", {"mine": 9}) == {"mine": str(tmp_path / "two" / "checkpoint_1")}


FULL = "ResourceError.*No space left on device"


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_disk_full_while_the_corpus_is_written(small_disk: Path, refused: Run, shared_ray: None) -> None:
    arguments = _arguments(small_disk / "run", **{"data.num_images": 80})
    with Ballast(small_disk, "run/corpus.making-*/answers/part-*.parquet") as ballast:
        message = refused(*arguments)
    assert _found(FULL, message)
    assert 1 <= len(ballast.kept) < 20
    assert read_meta(str(small_disk / "run" / "corpus")) is None
    assert run_verb("corpus", [*arguments, "--systems", "baseline", "qa_clims"]) == 0
    ballast.check_kept(small_disk / "run/corpus/answers")
    assert read_corpus(str(small_disk / "run/corpus/answers"))["image_id"].nunique() == 80


def _arguments(out: Path, **overrides: object) -> list[str]:
    return ["miniature", "--out", str(out), *as_flags({**SMALL, **overrides})]


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_disk_full_while_cams_are_written(
    small_disk: Path, refused: Run, shared_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qaclims_ray.data.shards.IMAGES_PER_SHARD", 8)
    arguments = _arguments(small_disk / "run", **{"data.num_images": 160, "systems": ["baseline"]})
    with Ballast(small_disk, "run/cams/baseline.making-*/part-*.parquet") as ballast:
        message = refused(*arguments)
    assert _found(FULL, message)
    assert 1 <= len(ballast.kept) < 20
    assert run_verb("cams", arguments) == 0
    ballast.check_kept(small_disk / "run/cams/baseline")


@pytest.mark.ray
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("num_workers", [0, 2])
def test_disk_full_while_checkpoints_are_written(
    num_workers: int, small_disk: Path, empty_store: Path, refused: Run, shared_ray: None
) -> None:
    shutil.copyfile(empty_store, small_disk / "mlflow.db")
    overrides = {"systems": ["baseline"], "classifier.optim.epochs": 12, "cluster.num_workers": num_workers}
    overrides["cluster.max_failures"] = 0  # a restart meets the same disk
    overrides |= {"tracking.enabled": True, "tracking.uri": f"sqlite:///{small_disk}/mlflow.db"}  # so does its store
    arguments = _arguments(small_disk / "run", **overrides)

    def epochs(note: Path) -> int:
        """0 where the copy is not whole: its files come in any order, and the last copy hits the full disk."""
        return epochs_kept(str(note.parent)) if note.stat().st_size else 0

    with Ballast(
        small_disk, "run/training_runs/classifier-*/*/training.json", lambda note: epochs(note) > 0
    ) as ballast:
        message = refused(*arguments)
    assert _found(FULL, message)
    assert str(small_disk) in message and message.count("\n") == 1, "one line that names the place"
    assert 1 <= max(map(epochs, ballast.kept)) < 12
    mark_checkpoints(small_disk / "run" / "training_runs")
    assert run_verb("train", arguments) == 0
    curve = json.loads((small_disk / "run" / "classifier" / "curves.json").read_text())
    assert MARK in curve, "it went on from a checkpoint, and did not begin again"
    assert {"3", "36"} <= set(curve), "the curves of all epochs are there, those before the stop too"
