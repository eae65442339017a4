"""What networks that make their own masks learn from, made in this process."""

from benchmarks.online import online_config, opened
from qaclims_ray.corpus.table import read_corpus
from qaclims_ray.run_config import with_overrides
from qaclims_ray.text.bank import read_bank


def test_answers_are_asked_for_once_where_a_system_learns_from_them(tmp_path) -> None:
    config = with_overrides(online_config(7, "online_answers", {}), {"data.num_images": 8})
    stage, manifest = opened(tmp_path, config, "online_answers")
    corpus, bank = read_corpus(stage.layout.corpus_table), read_bank(stage.layout.text_bank("online_answers"))
    assert (
        set(corpus["image_id"]) <= {record.image_id for record in manifest.records} and (corpus["status"] == "ok").all()
    )
    names = {f"a photo of {name}" for name in manifest.class_names}
    assert set(bank.texts) - names, "answers are among what maps are made of"
    again, _ = opened(tmp_path, config, "online_answers")
    assert read_corpus(again.layout.corpus_table).equals(corpus)
