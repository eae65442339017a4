"""The same pipeline with data and outputs on a real S3 server (moto, on this machine)."""

import pytest

from qaclims_ray.data import storage
from qaclims_ray.data.artifacts import read_meta
from qaclims_ray.errors import QaclimsError, ResourceError
from qaclims_ray.miniature import vocabulary
from qaclims_ray.miniature.dataset import write_dataset
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.pipeline import run_pipeline
from qaclims_ray.stages.predict import run_predict
from qaclims_ray.stages.requests import PredictArguments
from tests.cluster.small_run import AS_VOC, small_config

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900), pytest.mark.usefixtures("shared_ray")]


def test_folder_data_set_on_s3_from_images_to_masks(bucket, tmp_path):
    local = tmp_path / "voc"
    write_dataset(str(local), num_images=16, seed=3)
    storage.upload_tree(str(local), f"{bucket}/voc")
    config = small_config(
        **AS_VOC,
        data__root=f"{bucket}/voc",
        systems=["baseline", "ritc_class_names"],
        cluster__num_workers=1,
    )
    # VOC's reader, with classes that VOC and the miniature share.
    assert set(vocabulary.CLASSES) <= set(_voc_names())
    out = f"{bucket}/runs/one"
    outcome = run_pipeline(config, out)
    layout = RunLayout(out)
    for uri in (layout.manifest, layout.classifier, layout.network("ritc_class_names"), layout.cams("baseline")):
        assert read_meta(uri) is not None
    assert outcome.report_uri.startswith(out)
    assert storage.exists(outcome.report_uri)
    image = storage.list_files(f"{bucket}/voc/JPEGImages")[0]
    run_predict(PredictArguments(run=out, images=(image,), out=f"{bucket}/predicted"))
    assert len(storage.list_files(f"{bucket}/predicted/masks")) == 1


def test_bucket_that_is_not_there_fails_before_work(bucket):
    with pytest.raises(ResourceError, match="nowhere"):
        run_pipeline(small_config(cluster__num_workers=1), "s3://nowhere/run")


def test_unknown_protocol_is_named(tmp_path):
    with pytest.raises(QaclimsError, match="nosuch"):
        run_pipeline(small_config(cluster__num_workers=1), "nosuch://bucket/run")


def _voc_names() -> tuple[str, ...]:
    from qaclims_ray.data.classes import VOC_CLASSES

    return VOC_CLASSES
