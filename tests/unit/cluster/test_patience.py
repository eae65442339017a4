"""How long a wait may be silent, and what is said then; no Ray."""

import pytest

from qaclims_ray.cluster.config import ClusterConfig
from qaclims_ray.cluster.patience import out_of_patience, patience_s, patient_for
from qaclims_ray.errors import ConfigError, ResourceError


def test_patience_lasts_for_its_context_alone():
    assert patience_s() is None
    with patient_for(2.0):
        assert patience_s() == 120
        with patient_for(None):
            assert patience_s() is None
        assert patience_s() == 120
        assert "for 2 minutes (cluster.no_progress_minutes)" in str(out_of_patience("the stage"))
    assert patience_s() is None


def test_the_error_says_what_was_waited_for_how_long_and_what_to_do():
    with patient_for(90):
        error = out_of_patience("the stage, with 3 of 4 shards done,")
    assert isinstance(error, ResourceError)
    told = "the stage, with 3 of 4 shards done, has given no sign of progress for 90 minutes"
    assert str(error).startswith(told) and str(error).endswith(
        "What is finished is kept; run the same command again to go on"
    )


@pytest.mark.parametrize("minutes", [0.0, -1.0])
def test_a_bound_that_is_none_is_refused(minutes):
    with pytest.raises(ConfigError, match=r"cluster\.no_progress_minutes is .*, expected more than 0, or None"):
        ClusterConfig(no_progress_minutes=minutes)
