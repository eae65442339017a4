"""What is known of a run before any network is built."""

import pytest

from qaclims_ray.errors import ConfigError
from qaclims_ray.presets.miniature import miniature
from qaclims_ray.run_config import with_overrides
from qaclims_ray.stages.preflight import batch_sizes, preflight

SMALL_BATCH = {"name": "small", "like": "baseline", "overrides": {"segmentation.optim.batch_size": 2}}


@pytest.mark.parametrize("systems", [["baseline", "small"], ["small", "baseline"]])
def test_the_smallest_batch_counts_whichever_system_has_it(systems: list[str], tmp_path) -> None:
    config = with_overrides(
        miniature(),
        {"variants": [SMALL_BATCH], "systems": systems, "supervised_bound": False, "cluster.num_workers": 3},
    )
    assert batch_sizes(config)["segmentation.optim.batch_size"] == 2
    with pytest.raises(ConfigError, match=r"num_workers is 3, more than a batch has images: segmentation.*is 2"):
        preflight(config, str(tmp_path))
