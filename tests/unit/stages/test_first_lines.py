"""What a run says before its first stage."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from qaclims_ray.errors import ConfigError
from qaclims_ray.presets.miniature import miniature
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.stages.pipeline import run_pipeline

SMALL = {"data.num_images": 8, "tracking.enabled": False, "systems": ["baseline", "qa_clims"], "goal": "seed"}


def said(config: RunConfig, out: Path, trial: str = "") -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    run_pipeline(config, str(out), until="data", console=console, trial=trial)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_every_weight_is_named_with_its_licence_in_the_first_lines(tmp_path: Path) -> None:
    lines = said(with_overrides(miniature(), {**SMALL, "cam_net.weights": __file__}), tmp_path)
    assert lines[:2] == [
        "  weights: the miniature world's CLIPs and BLIP (clip.weights, corpus.model): licence MIT; anyone, also "
        "commercially",
        f"  weights: {__file__} of miniature (cam_net.weights): licence unknown; yours to know",
    ]
    assert not [line for line in said(with_overrides(miniature(), SMALL), tmp_path, trial="t") if "weights:" in line]


def test_a_refused_run_leaves_nothing(tmp_path: Path) -> None:
    config = with_overrides(miniature(), {**SMALL, "cam_net.weights": __file__, "licences": "permissive"})
    with pytest.raises(ConfigError, match="licences is permissive"):
        said(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()
