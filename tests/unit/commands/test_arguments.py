import pytest

from qaclims_ray.commands.arguments import absolute_out
from qaclims_ray.errors import ConfigError


def test_a_submitted_job_refuses_an_output_folder_that_would_be_lost(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert absolute_out("runs/x") == str(tmp_path / "runs/x")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ConfigError, match="give an absolute path that all nodes see"):
        absolute_out("runs/x")
    assert absolute_out("/shared/x") == "/shared/x"
    assert absolute_out("s3://bucket/x") == "s3://bucket/x"
