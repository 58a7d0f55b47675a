"""A simulated API: OpenAI's wire format, limits and faults, with no model behind it.

For the demo, the tests, and whoever rehearses a job before paying for it. Everything that it
answers says so: ``system_fingerprint`` is ``simulated``, and so is the ``x-simulated`` header.

Import ``SimulatorSettings`` and ``serve``; ``prompt_hash`` gives the keys of ``GET /stats``.
"""

from producer.simulator.draws import prompt_hash
from producer.simulator.server import serve
from producer.simulator.settings import SimulatorSettings

__all__ = ["SimulatorSettings", "prompt_hash", "serve"]
