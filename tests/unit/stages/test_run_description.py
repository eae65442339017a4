from qaclims_ray.data.config import DataConfig
from qaclims_ray.presets.miniature import miniature
from qaclims_ray.run_config import RunConfig, to_dict, with_overrides
from qaclims_ray.stages.run_description import changed_settings, failure_tag, run_note, run_tags, without_password


def test_only_what_differs_from_the_preset_is_listed():
    config = with_overrides(miniature(), {"ritc.omega": 0.4, "cams.scales": [1.0, 0.5], "seed": 3})
    assert changed_settings(config, miniature()) == {"seed": 3, "ritc.omega": 0.4, "cams.scales": [1.0, 0.5]}
    assert changed_settings(miniature(), miniature()) == {}


def test_a_password_of_the_tracking_store_is_shown_nowhere():
    config = with_overrides(miniature(), {"tracking.uri": "postgresql://ann:secret@host/db"})
    told = [changed_settings(config, miniature()), without_password(to_dict(config))]
    assert "secret" not in str(told) and told[0] == {"tracking.uri": "postgresql://host/db"}
    assert to_dict(config)["tracking"]["uri"] == "postgresql://ann:secret@host/db", "the run itself needs it"


def test_the_note_shows_scores_in_percent_and_what_changed():
    note = run_note({"QA-CLIMS": {"fixed": 0.5712, "best": 0.6}}, {"ritc.omega": 0.4})
    assert note.splitlines() == [
        "| system | fixed | best |",
        "|---|---|---|",
        "| QA-CLIMS | 57.1 | 60.0 |",
        "",
        "Changed from the preset: `ritc.omega=0.4`",
    ]
    assert run_note({}, {}) == "Changed from the preset: nothing"


def test_systems_may_have_stages_that_others_lack():
    note = run_note(
        {
            "QA-CLIMS": {"mIoU, fixed threshold": 0.57, "segmentation mIoU": 0.61},
            "masks": {"mIoU, fixed threshold": 0.2, "pseudo mask mIoU": 0.3},
            "fully supervised": {"segmentation mIoU": 0.78},
        },
        {},
    )
    assert note.splitlines()[:5] == [
        "| system | mIoU, fixed threshold | segmentation mIoU | pseudo mask mIoU |",
        "|---|---|---|---|",
        "| QA-CLIMS | 57.0 | 61.0 | - |",
        "| masks | 20.0 | - | 30.0 |",
        "| fully supervised | - | 78.0 | - |",
    ]


def test_tags_say_what_ran():
    config = RunConfig(name="miniature", seed=3, data=DataConfig(dataset="miniature"))
    tags = run_tags(config, data_fingerprint="81ab", system="qa_clims", stage="evaluate")
    assert tags["preset"] == "miniature"
    assert tags["profile"] == "official"
    assert tags["seed"] == "3"
    assert (tags["system"], tags["systems"], tags["stage"]) == ("qa_clims", "qa_clims", "evaluate")
    assert tags["data_fingerprint"] == "81ab"
    assert len(tags["source_hash"]) == 12
    assert tags["version.ray"].startswith("2.")
    parent = run_tags(config)
    assert "system" not in parent and "data_fingerprint" not in parent
    assert parent["systems"] == "baseline, ritc_class_names, qa_clims"


def test_without_a_score_there_is_no_table():
    note = run_note({"CAM": {}, "QA-CLIMS": {}}, {}, ["Scored on nothing"])
    assert "|" not in note and note.startswith("CAM, QA-CLIMS: not scored") and "Scored on nothing." in note


def test_why_a_run_failed_is_one_line():
    assert failure_tag(ValueError("a\nb")) == {"failure": "ValueError: a"}
    assert failure_tag(KeyboardInterrupt()) == {"failure": "stopped by hand"}
    assert len(failure_tag(ValueError("x" * 9000))["failure"]) == 500
    assert failure_tag(OSError("no answer of http://ann:secret@host/x")) == {
        "failure": "OSError: no answer of http://host/x"
    }
