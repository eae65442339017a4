import pytest

from qaclims_ray.errors import ConfigError, ResourceError
from qaclims_ray.tracking import store
from qaclims_ray.tracking.config import TrackingConfig
from qaclims_ray.tracking.store import artifact_root, first_line, opening_failure, spool_folder, tracking_uri


def test_runs_of_one_folder_share_a_store(tmp_path):
    stores = {tracking_uri(TrackingConfig(), str(tmp_path / name)) for name in ("a", "b")}
    assert stores == {f"sqlite:///{tmp_path}/mlflow.db"}


def test_a_bucket_holds_no_store():
    assert tracking_uri(TrackingConfig(), "s3://bucket/run") == ""


def test_relative_database_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tracking_uri(TrackingConfig(uri="sqlite:///x/m.db"), "out") == f"sqlite:///{tmp_path}/x/m.db"


@pytest.mark.parametrize("uri", ["http://127.0.0.1:5000", "https://u:p@host/x", "postgresql+psycopg2://u@h/db"])
def test_servers_and_databases_pass(uri):
    assert tracking_uri(TrackingConfig(uri=uri), "out") == uri


@pytest.mark.parametrize("uri", ["file:./mlruns", "./mlruns", "htp://host", "127.0.0.1:5000", "/abs/mlruns"])
def test_other_addresses_are_refused(uri):
    with pytest.raises(ConfigError, match=r"tracking\.uri is .*expected http"):
        tracking_uri(TrackingConfig(uri=uri), "out")


def test_artifacts_never_lie_in_the_working_directory(tmp_path):
    assert artifact_root("sqlite:////runs/mlflow.db", "my exp", "/elsewhere/a") == "/runs/mlflow-artifacts/my-exp"
    assert artifact_root("postgresql://h/db", "e", str(tmp_path / "a")) == f"{tmp_path}/mlflow-artifacts/e"
    assert artifact_root("postgresql://h/db", "e", "s3://bucket/runs/a") == "s3://bucket/runs/mlflow-artifacts/e"
    assert artifact_root("http://h:5000", "e", "/runs/a") is None


def test_what_a_library_says_of_a_store_is_told_without_its_password():
    uri = "postgresql://ann:secret@host/db"
    error = opening_failure(uri, ValueError(f"Could not parse URL from string '{uri}'"))
    assert "secret" not in str(error) and "ann:" not in str(error)
    assert "the tracking store postgresql://host/db" in str(error) and "from string 'postgresql://host/db'" in str(
        error
    )


def test_a_remote_spool_has_a_local_folder():
    first, second = spool_folder("s3://bucket/a/tracking-spool"), spool_folder("s3://bucket/b/tracking-spool")
    assert first.is_absolute()
    assert first != second
    assert spool_folder("/x/tracking-spool").as_posix() == "/x/tracking-spool"


def test_another_process_that_makes_a_store_for_too_long_is_told(tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setattr(store, "_MADE_WITHIN_S", 0.0)
    with store.one_at_a_time(uri):
        with pytest.raises(ResourceError, match=r"another process has been making .*mlflow\.db\.lock\. End it, or"):
            with store.one_at_a_time(uri):
                pass
    with store.one_at_a_time(uri):
        pass


def test_a_password_is_not_told_where_a_message_is_cut():
    told = first_line(ValueError("x" * 270 + " postgresql://me:" + "secret" * 20 + "@host/db"))
    assert "secret" not in told and len(told) <= 300
