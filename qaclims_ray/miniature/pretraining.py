"""Train the miniature world's own models and write their model card.

Usage: python -m qaclims_ray.miniature.pretraining --stage {clip,clip_context,vqa,all} --seed 0 --out FOLDER

Stages can be cut at any time: a second call takes up what the first one left, or only measures again. `--out` is the
folder of the model (`clip/`, `clip_context/` or `vqa/`); with `--stage all` it is the folder that holds all of them.
`clip_context` is a CLIP that takes a class's own surroundings for the class, as SemPLeS's setting needs.
"""

import argparse
import logging
from pathlib import Path

import torch

logger = logging.getLogger(__name__ if __name__ != "__main__" else "qaclims_ray.miniature.pretraining")


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and run the stages."""
    parser = argparse.ArgumentParser(prog="python -m qaclims_ray.miniature.pretraining", description=__doc__)
    parser.add_argument("--stage", choices=("clip", "clip_context", "vqa", "all"), required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads; part of what makes a run repeatable")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("qaclims_ray").setLevel(logging.INFO)
    torch.set_num_threads(options.threads)
    for stage in ("clip", "clip_context"):
        if options.stage in (stage, "all"):
            out_dir = options.out / stage if options.stage == "all" else options.out
            _train_clip(options.seed, out_dir, is_context_biased=stage == "clip_context")
    if options.stage in ("vqa", "all"):
        out_dir = options.out / "vqa" if options.stage == "all" else options.out
        _train_vqa(options.seed, out_dir)


def _train_clip(seed: int, out_dir: Path, *, is_context_biased: bool) -> None:
    from qaclims_ray.miniature.captions import CONTEXT_BIASED, MatchSettings
    from qaclims_ray.miniature.clip_card import write_clip_card
    from qaclims_ray.miniature.clip_pretraining import ClipPretrainingSettings, train_clip

    match = CONTEXT_BIASED if is_context_biased else MatchSettings()
    train_clip(ClipPretrainingSettings(match=match), seed=seed, out_dir=out_dir)
    rows = write_clip_card(out_dir)
    logger.info("clip accuracy: %s", ", ".join(f"{name} {row.accuracy:.2f}" for name, row in rows.items()))


def _train_vqa(seed: int, out_dir: Path) -> None:
    from qaclims_ray.miniature.vqa_pretraining import VqaSettings, train_vqa

    train_vqa(VqaSettings(), seed=seed, out_dir=out_dir)


if __name__ == "__main__":
    main()
