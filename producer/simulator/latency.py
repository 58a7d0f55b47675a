"""How long an answer takes: a lognormal around the median, and a share of stragglers."""

from math import exp
from statistics import NormalDist

from producer.simulator.draws import draw
from producer.simulator.settings import SimulatorSettings

SLOW_TRIGGER = "[[slow]]"
SLOW_FACTOR = 10.0
_NORMAL = NormalDist()


def latency_s(
    texts: tuple[str, ...], *, key: int, openai_model: str, settings: SimulatorSettings
) -> float:
    """The time to answer these rows; the same each time they are asked."""
    median_s = settings.latency_s
    if median_s == 0:
        return 0.0
    if any(SLOW_TRIGGER in text for text in texts):
        return median_s * SLOW_FACTOR
    seed = settings.seed
    if settings.tail_share:
        tail = draw("tail", seed=seed, openai_model=openai_model, key=key)
        if tail < settings.tail_share:
            return median_s * settings.tail_factor
    if not settings.latency_spread:
        return median_s
    share = draw("latency", seed=seed, openai_model=openai_model, key=key)
    # inv_cdf is not defined at 0, which a draw can be.
    return median_s * exp(settings.latency_spread * _NORMAL.inv_cdf(max(share, 1e-12)))
