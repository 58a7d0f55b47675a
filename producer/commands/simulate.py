"""``producer simulate``."""

from producer.simulator.command import simulate

__all__ = ["simulate"]
