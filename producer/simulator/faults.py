"""Which requests go wrong and how: by rates, and by triggers in a prompt's text.

Faults strike requests that the limits let pass: when a limit refuses depends on time,
and a prompt's faults must not.
"""

from dataclasses import dataclass, field
from enum import Enum

from producer.simulator.draws import draw, prompt_key
from producer.simulator.settings import FAULT_RATES, SimulatorSettings

FLAKY_TIMES = 2
_TRIGGER_START = "[["


class Fault(str, Enum):
    """What can go wrong. A name in double brackets in a prompt makes it so, each time."""

    ERROR = "error"  # 500
    THROTTLE = "throttle"  # 429
    UNAVAILABLE = "unavailable"  # 503
    TIMEOUT = "timeout"  # never answered
    RESET = "reset"  # the connection, in mid-answer or before
    GARBAGE = "garbage"  # 200, but not JSON
    TRUNCATE = "truncate"  # 200, but cut off
    NO_USAGE = "no_usage"
    NO_CHOICES = "no_choices"
    REJECT = "reject"  # 400: this input is refused
    FILTER = "filter"  # 400: by a content filter
    LEAK = "leak"  # 400, with the key in message, code, address and request id
    LEAK_ERROR = "leak_error"  # the same as a 500
    FLAKY = "flaky"  # 500 the first two times; no rate of its own


_BY_RATE = {name: Fault(name.removesuffix("_rate")) for name in FAULT_RATES}


@dataclass(slots=True)
class FaultDrawer:
    """Draws faults, and remembers how often each prompt was asked while faults were on."""

    times_seen: dict[int, int] = field(default_factory=dict)

    def fault(
        self, texts: tuple[str, ...], *, key: int, openai_model: str, settings: SimulatorSettings
    ) -> Fault | None:
        """The fault of this request, counting it as one more time that it was asked."""
        for text in texts:
            if _TRIGGER_START in text:
                fault = self._triggered(text)
                if fault is not None:
                    return fault
        if not settings.faults:
            return None
        share = draw(
            "fault", seed=settings.seed, openai_model=openai_model, key=key, nth=self._nth(key)
        )
        return _struck(share, settings=settings)

    def _nth(self, key: int) -> int:
        nth = self.times_seen.get(key, 0)
        self.times_seen[key] = nth + 1
        return nth

    def _triggered(self, text: str) -> Fault | None:
        for fault in Fault:
            if f"[[{fault.value}]]" not in text:
                continue
            if fault is not Fault.FLAKY:
                return fault
            # Of the text, not of the request: packed otherwise, it has still been seen.
            if self._nth(prompt_key(f"flaky {text}")) < FLAKY_TIMES:
                return Fault.ERROR
        return None


def _struck(share: float, *, settings: SimulatorSettings) -> Fault | None:
    """The fault in whose stretch of [0, 1) the draw fell: at most one strikes."""
    for name, rate in settings.faults:
        share -= rate
        if share < 0:
            return _BY_RATE[name]
    return None
