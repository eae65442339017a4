"""Whether a cluster can grow: said by the file that `ray up` leaves on the head node."""

import json
from pathlib import Path

import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config

from qaclims_ray.cluster.session import check_resources
from qaclims_ray.errors import ResourceError
from qaclims_ray.presets.table import preset
from qaclims_ray.stages.resources import needs_of

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    # A cluster of one small machine; no Ray is started.
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 1.0})
    return tmp_path


def leave(home: Path, cluster_file: str) -> None:
    """Write what `ray up` writes: JSON, under a name that ends on yaml."""
    config = prepare_config(yaml.safe_load((ROOT / cluster_file).read_text()))
    (home / "ray_bootstrap_config.yaml").write_text(json.dumps(config))


def test_a_cluster_of_a_cloud_may_grow(home):
    leave(home, "cluster.yaml")
    check_resources(needs_of(preset("miniature")))


def test_named_machines_are_all_there_is(home):
    leave(home, "docs/cluster/on_premises.yaml")
    with pytest.raises(ResourceError, match="this Ray has 1 CPU"):
        check_resources(needs_of(preset("miniature")))


def test_without_cluster_file_nothing_grows(home):
    with pytest.raises(ResourceError, match="this Ray has 1 CPU"):
        check_resources(needs_of(preset("miniature")))
