"""Which path means what, of OpenAI's API, of Azure's, and of the simulation itself."""

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from producer.simulator.requests import Endpoint


class Control(str, Enum):
    """What can be asked of the simulation, rather than of a model."""

    STATS = "/stats"
    RESET = "/stats/reset"
    CONFIG = "/config"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What a path asks for: at most one of these."""

    endpoint: Endpoint | None = None
    deployment: str | None = None  # Azure's name for the model; of an endpoint only
    control: Control | None = None
    listed_model: str | None = None  # "": all of them

    @property
    def method(self) -> str | None:
        """The one method the path is asked with; None: any."""
        if self.endpoint is not None or self.control is Control.RESET:
            return "POST"
        return None if self.control is Control.CONFIG else "GET"


_OPENAI = re.compile(r"(?:/openai)?/v1/(chat/completions|completions|embeddings)")
_AZURE = re.compile(r"/openai/deployments/([^/]+)/(chat/completions|completions|embeddings)")
_MODELS = re.compile(r"(?:/openai)?/v1/models(?:/(.+))?")


@lru_cache(maxsize=1024)
def find_route(path: str) -> Route | None:
    """The route of a path, or None where there is none."""
    if match := _OPENAI.fullmatch(path):
        return Route(endpoint=Endpoint(match[1]))
    if match := _AZURE.fullmatch(path):
        return Route(endpoint=Endpoint(match[2]), deployment=match[1])
    if match := _MODELS.fullmatch(path):
        return Route(listed_model=match[1] or "")
    controls = {control.value: control for control in Control}
    return Route(control=controls[path]) if path in controls else None
