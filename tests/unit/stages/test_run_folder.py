import json
from pathlib import Path

import pytest

from qaclims_ray.data import places
from qaclims_ray.errors import ConfigError
from qaclims_ray.presets.miniature import miniature
from qaclims_ray.run_config import to_dict, with_overrides
from qaclims_ray.stages.run_folder import absolute_out, load_config


def test_a_submitted_job_refuses_an_output_folder_that_would_be_lost(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert absolute_out("runs/x") == str(tmp_path / "runs/x")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ConfigError, match="give an absolute path that all nodes see"):
        absolute_out("runs/x")
    assert absolute_out("/shared/x") == "/shared/x"
    assert absolute_out("s3://bucket/x") == "s3://bucket/x"


def test_a_folder_without_a_run_or_with_a_broken_one_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no run at .*give the output folder of a run"):
        load_config(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json cannot be read: it is cut short .*--out"):
        load_config(str(tmp_path))


def test_places_in_a_run_s_folder_are_where_it_lies_now(tmp_path: Path) -> None:
    config = with_overrides(miniature(), {"data.root": f"{tmp_path}/one/set", "given.cams": f"{tmp_path}/other/cams"})
    (tmp_path / "two").mkdir()
    stored = json.dumps(places.stored(to_dict(config), f"{tmp_path}/one"))
    (tmp_path / "two" / "config.json").write_text(stored)
    found = load_config(str(tmp_path / "two"))
    assert found.data.root == f"{tmp_path}/two/set" and found.given.cams == f"{tmp_path}/other/cams"
