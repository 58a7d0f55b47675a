"""The command line's refusals, and that it and the settings stay in step."""

from click.testing import CliRunner

from producer.simulator.command import simulate
from producer.simulator.settings import SimulatorSettings


def test_every_setting_is_an_option_with_a_help_text() -> None:
    text = CliRunner().invoke(simulate, ["--help"]).output

    for name in SimulatorSettings.model_fields:
        assert f"--{name.replace('_', '-')}" in text or name == "reset_is_paid"
    for name in ("--latency", "--throttle-retry-after", "--reset-after / --reset-before"):
        assert name in text


def test_a_host_that_others_can_reach_is_refused() -> None:
    for host in ("0.0.0.0", "example.com"):  # noqa: S104 - refused is what it must be
        refused = CliRunner().invoke(simulate, ["--host", host])

        assert refused.exit_code == 2
        assert "--allow-remote" in refused.output


def test_a_value_out_of_range_is_one_line() -> None:
    refused = CliRunner().invoke(simulate, ["--error-rate", "2", "--rpm", "0"])

    assert refused.exit_code == 2
    assert "error_rate" in refused.output
    assert "rpm" in refused.output
    assert "Traceback" not in refused.output
