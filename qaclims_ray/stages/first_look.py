"""The first look at a run's data: before its folder is made, weights are loaded, or Ray and MLflow are there.

A folder that is not there, or that says no labels, is told at once and leaves nothing behind. No picture is opened; the
stage `data` does that, and reports all faults of images and labels together.
"""

import contextlib

from qaclims_ray.data.folder_labels import gather_folder
from qaclims_ray.errors import QaclimsError
from qaclims_ray.presets.table import check_run
from qaclims_ray.run_config import RunConfig
from qaclims_ray.stages.learnable import check_labels
from qaclims_ray.stages.run_folder import load_config


def look_first(config: RunConfig, out: str) -> None:
    """Refuse a data set of which a run could make nothing; one that an earlier call has read is not looked at again.

    Raises:
        QaclimsError: saying what was found, what was expected and what to do.
    """
    check_run(config)
    with contextlib.suppress(QaclimsError):  # no run, or none that can be read: told where it matters
        if load_config(out).data == config.data:
            return
    match config.data.dataset:
        case "miniature":
            pass
        case "folder":
            gathered = gather_folder(config.data)
            if not gathered.faults:
                check_labels(config, gathered.class_names, gathered.images)
        # Their readers bring libraries along.
        case "voc12":
            from qaclims_ray.data.voc import find_voc_root

            find_voc_root(config.data.root)
        case "coco14":
            from qaclims_ray.data.coco import find_coco

            find_coco(config.data)
        case "bcss_wsss" | "luad_histoseg":
            from qaclims_ray.data.histology import find_histology

            find_histology(config.data)
