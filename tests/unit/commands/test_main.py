"""The guard around every verb: exit codes, and one line for what a user can mend."""

import errno

import pytest

from qaclims_ray.commands import verbs
from qaclims_ray.commands.main import INCOMPLETE, MISTAKE, STOPPED, run_verb
from qaclims_ray.commands.verbs import Verb
from qaclims_ray.errors import DataError


def _ends(monkeypatch, error: BaseException | None, incomplete: str | None = None) -> int:
    def work(asked: object, console: object) -> str | None:
        if error is not None:
            raise error
        return incomplete

    monkeypatch.setattr(verbs, "VERBS", {"try": Verb("Tries.", lambda line: line, work)})
    return run_verb("try", [], prog="jobs/try.py")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (None, 0, ""),
        (DataError("no images"), MISTAKE, "jobs/try.py: DataError: no images\n"),
        (OSError(errno.ENOSPC, "full"), MISTAKE, "jobs/try.py: ResourceError: [Errno 28] full. Check the permissions"),
        (KeyboardInterrupt(), STOPPED, "jobs/try.py: stopped; what is finished is kept"),
    ],
)
def test_a_verb_ends_in_an_exit_code_and_at_most_one_line(monkeypatch, capsys, error, code, message):
    assert _ends(monkeypatch, error) == code
    assert capsys.readouterr().err.startswith(message)


def test_what_stayed_incomplete_is_said(monkeypatch, capsys):
    assert _ends(monkeypatch, None, "2 trials failed; the same command tries them again") == INCOMPLETE
    assert capsys.readouterr().err == "jobs/try.py: 2 trials failed; the same command tries them again\n"


@pytest.mark.parametrize("error", [KeyError("ours"), OSError(errno.ENOENT, "no file")])
def test_a_mistake_of_ours_keeps_its_trace(monkeypatch, error):
    with pytest.raises(type(error)):
        _ends(monkeypatch, error)
