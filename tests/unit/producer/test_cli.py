"""The command line itself: what is no command."""

from __future__ import annotations

import pytest

from producer.cli import main


@pytest.mark.parametrize(
    ("typed", "said"),
    [("sumbit", "did you mean 'submit'?"), ("zzz", "No such command 'zzz'")],
)
def test_an_unknown_command_is_named_with_the_nearest(
    typed: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["producer", typed])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert repr(typed) in err
    assert said in err
