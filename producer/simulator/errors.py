"""Refusals in OpenAI's words: status, type, code and message as its clients know them.

Sources: platform.openai.com/docs/guides/error-codes, and messages that its API returned.
"""

from producer.simulator.settings import SimulatorSettings

Headers = tuple[tuple[str, str], ...]


class ApiError(Exception):
    """The request is answered with an error; the message is the body's."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str | None = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Headers = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param
        self.headers = headers

    def payload(self) -> dict[str, object]:
        """The body of the answer."""
        return {
            "error": {
                "message": str(self),
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }


def missing(name: str) -> ApiError:
    """A parameter without which there is nothing to do."""
    message = f"Missing required parameter: '{name}'."
    return ApiError(message, param=name, code="missing_required_parameter")


def wrong_type(name: str, *, expected: str, value: object) -> ApiError:
    """A parameter of a type that OpenAI refuses."""
    found = "null" if value is None else type(value).__name__
    message = f"Invalid type for '{name}': expected {expected}, but got {found} instead."
    return ApiError(message, param=name, code="invalid_type")


def check_key(key: str | None, *, settings: SimulatorSettings) -> str:
    """The key if it is a good one.

    Raises:
        ApiError: 401. Like OpenAI's, the message shows the key's head and tail: whoever
            logs it must scrub it.
    """
    if not key:
        message = (
            "You didn't provide an API key. You need to provide your API key in an Authorization"
            " header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
        )
        raise ApiError(message, status=401)
    if key == "invalid" or (settings.keys and key not in settings.keys):
        shown = key if len(key) <= 12 else f"{key[:8]}{'*' * (len(key) - 12)}{key[-4:]}"
        message = (
            f"Incorrect API key provided: {shown}. You can find your API key at"
            " https://platform.openai.com/account/api-keys."
        )
        raise ApiError(message, status=401, code="invalid_api_key")
    return key


def check_model(openai_model: str, *, is_azure: bool, settings: SimulatorSettings) -> None:
    """Pass a model that there is.

    Raises:
        ApiError: 404, in the words of OpenAI or of Azure.
    """
    is_known = openai_model in settings.models if settings.models else True
    if is_known and not openai_model.startswith("unknown-"):
        return
    if is_azure:
        message = "The API deployment for this resource does not exist."
        raise ApiError(message, status=404, kind=None, code="DeploymentNotFound")
    message = f"The model `{openai_model}` does not exist or you do not have access to it."
    raise ApiError(message, status=404, code="model_not_found")


def check_context(prompt_tokens: int, *, most: int) -> None:
    """Raise what a prompt that is longer than the model's context is answered with."""
    if prompt_tokens > most:
        message = (
            f"This model's maximum context length is {most} tokens. However, your messages resulted"
            f" in {prompt_tokens} tokens. Please reduce the length of the messages."
        )
        raise ApiError(message, param="messages", code="context_length_exceeded")


def out_of_quota() -> ApiError:
    """The account has no money left."""
    message = (
        "You exceeded your current quota, please check your plan and billing details. For more"
        " information on this error, read the docs:"
        " https://platform.openai.com/docs/guides/error-codes/api-errors."
    )
    return ApiError(message, status=429, kind="insufficient_quota", code="insufficient_quota")


def server_error() -> ApiError:
    """A 500."""
    message = "The server had an error while processing your request. Sorry about that! (simulated)"
    return ApiError(message, status=500, kind="server_error")


def leaked(key: str, *, status: int) -> ApiError:
    """An answer that shows the whole key, as some gateways do with what they did not understand."""
    message = (
        f"upstream refused GET https://user:{key}@api.example/v1/chat?api-key={key}"
        f" with Authorization: Bearer {key}; key {key} (simulated)"
    )
    headers = (("x-request-id", f"req_{key}"),)
    return ApiError(message, status=status, kind=f"gateway_{key}", code=key, headers=headers)


def content_filtered() -> ApiError:
    """Azure's refusal of a prompt."""
    message = (
        "The response was filtered due to the prompt triggering Azure OpenAI's content management"
        " policy. Please modify your prompt and retry. (simulated)"
    )
    return ApiError(message, kind=None, param="prompt", code="content_filter")
