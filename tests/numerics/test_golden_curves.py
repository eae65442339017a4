"""Twenty steps of each training on synthetic data against recorded loss curves.

Re-record after a deliberate change, in its own commit with the reason: ``python -m tests.numerics.test_golden_curves``.
"""

import dataclasses
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from qaclims_ray.methods.classifier.config import ClassifierConfig
from qaclims_ray.methods.classifier.task import train_classifier
from qaclims_ray.methods.clims.task import train_clims
from qaclims_ray.methods.qa_clims.task import train_ritc
from qaclims_ray.methods.semples.matching import region_options, train_matching
from qaclims_ray.methods.semples.prompts import train_prompts
from qaclims_ray.models.generators.cam_net import build_cam_net, save_cam_net
from qaclims_ray.training.config import OptimConfig
from qaclims_ray.training.context import LocalContext
from tests.ritc_fakes import AUGMENT, CAM_NET, TinyClip, TinyTexts, ritc_config, with_setup, write_pictures
from tests.semples_fakes import clims_config, near_bank, prompt_config, semples_config, shipped_clip, texts_near

GOLDEN = Path(__file__).parents[1] / "golden" / "loss_curves.json"
STILL = dataclasses.replace(AUGMENT, flip=False)
# Every step sees all images.
OPTIM = OptimConfig(lr=0.02, head_lr_factor=10.0, momentum=0.0, epochs=20, batch_size=12)


def curves(folder: Path) -> dict[str, list[float]]:
    """Train and return the loss of each of the twenty steps."""
    found: dict[str, list[float]] = {}
    torch.manual_seed(0)
    save_cam_net(build_cam_net(CAM_NET, 3, classifier_bias=True), str(folder / "init"))
    shared = {
        "manifest": write_pictures(folder),
        "cam_net": CAM_NET,
        "augment": STILL,
        "precision": "fp32",
        "loader_workers": 0,
        "seed": 0,
    }

    def recorder(name: str) -> dict:
        found[name] = []
        return {"context": LocalContext(str(folder / name)), "on_step": lambda _, m: found[name].append(m["loss"])}

    classifier = ClassifierConfig(optim=OPTIM, freeze_batch_norm=False)
    train_classifier(**with_setup(classifier=classifier, **shared, **recorder("classifier")))
    for name, changes in {
        "ritc_official": {},
        "ritc_paper": {
            "optim": dataclasses.replace(OPTIM, lr=0.006),
            "region_mode": "pixel_mask",
            "background_pool": "exp_mean",
            "clip_normalisation": "clip",
            "pair_reduction": "mean_pairs",
            "area_over": "present",
        },
    }.items():
        config = ritc_config(
            **{"optim": dataclasses.replace(OPTIM, lr=0.002), "omega": 0.7, "temperature": 0.1, **changes}
        )
        texts = {"bank": TinyTexts(12), "clip": TinyClip(), "init_dir": str(folder / "init")}
        train_ritc(**with_setup(ritc=config, **texts, **shared, **recorder(name)))
    _clip_curves(str(folder / "init"), shared, recorder)
    return found


def _clip_curves(init_dir: str, shared: dict, recorder: Callable[[str], dict]) -> None:
    """Train with the losses of CLIMS and SemPLeS."""
    clip = shipped_clip()
    start = {**shared, "init_dir": init_dir, "clip": clip}
    # Without a threshold, whose steps another machine might take an epoch later.
    clims = clims_config(optim=dataclasses.replace(OPTIM, lr=0.05), suppression_threshold=None, background_weight=4.0)
    train_clims(**with_setup(clims=clims, bank=near_bank(clip, 12), **start, **recorder("clims")))
    start["class_texts"] = texts_near(clip, 3, seed=3)
    official = {"semples": semples_config(), "optim": dataclasses.replace(OPTIM, lr=0.01)}
    train_matching(**with_setup(prompts=None, **official, **start, **recorder("semples_match")))
    semples = semples_config(mask="sigmoid", omega=0.1, area_weight=0.2, refine_weight=0.5)
    ours = {"semples": semples, "optim": dataclasses.replace(OPTIM, lr=0.5)}
    train_matching(**with_setup(prompts=texts_near(clip, 3, seed=4), **ours, **start, **recorder("semples_refine")))
    settings = prompt_config(epochs=20, steps_per_epoch=1, batch_size=30, lr=0.02)
    train_prompts(
        **with_setup(
            semples=semples_config(prompt=settings),
            options=region_options(semples, epsilon=1e-4),
            **start,
            **recorder("semples_prompts"),
        )
    )


def test_loss_curves_are_the_recorded_ones(tmp_path) -> None:
    expected = json.loads(GOLDEN.read_text())
    found = curves(tmp_path)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert len(values) == 20 and max(values) - min(values) > 0.015 * values[0], name
        # Machines round differently; a wrong gradient shows in the shape of the curve, not in its level.
        tolerance = 0.02 * (max(values) - min(values))
        assert found[name] == pytest.approx(values, abs=tolerance), name


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(json.dumps(curves(Path(folder)), indent=2) + "\n")
