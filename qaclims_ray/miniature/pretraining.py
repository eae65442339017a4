"""Train the miniature world's own models and write their model card.

Usage: python -m qaclims_ray.miniature.pretraining --stage {clip,vqa,all} --seed 0 --out FOLDER

Stages can be cut at any time: a second call takes up what the first one left, or only measures again. `--out` is the
folder of the model (`clip/` or `vqa/`); with `--stage all` it is the folder that holds both.
"""

import argparse
import logging
from pathlib import Path

import torch

logger = logging.getLogger(__name__ if __name__ != "__main__" else "qaclims_ray.miniature.pretraining")


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and run the stages."""
    parser = argparse.ArgumentParser(prog="python -m qaclims_ray.miniature.pretraining", description=__doc__)
    parser.add_argument("--stage", choices=("clip", "vqa", "all"), required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads; part of what makes a run repeatable")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("qaclims_ray").setLevel(logging.INFO)
    torch.set_num_threads(options.threads)
    if options.stage in ("clip", "all"):
        out_dir = options.out / "clip" if options.stage == "all" else options.out
        _train_clip(options.seed, out_dir)
    if options.stage in ("vqa", "all"):
        out_dir = options.out / "vqa" if options.stage == "all" else options.out
        _train_vqa(options.seed, out_dir)


def _train_clip(seed: int, out_dir: Path) -> None:
    from qaclims_ray.miniature.clip_card import write_clip_card
    from qaclims_ray.miniature.clip_pretraining import ClipPretrainingSettings, train_clip

    train_clip(ClipPretrainingSettings(), seed=seed, out_dir=out_dir)
    rows = write_clip_card(out_dir)
    logger.info("clip accuracy: %s", ", ".join(f"{name} {row.accuracy:.2f}" for name, row in rows.items()))


def _train_vqa(seed: int, out_dir: Path) -> None:
    from qaclims_ray.miniature.vqa_pretraining import VqaSettings, train_vqa

    train_vqa(VqaSettings(), seed=seed, out_dir=out_dir)


if __name__ == "__main__":
    main()
