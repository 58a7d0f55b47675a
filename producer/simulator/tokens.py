"""How many tokens a text has, roughly: usage follows the text's length, as a bill would.

No tokenizer: four characters a token is OpenAI's own rule of thumb, costs nothing, and
needs no download.
"""

CHARACTERS_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 3  # Source: OpenAI cookbook, how to count tokens with tiktoken
TOKENS_PER_REPLY = 3  # the same: every reply is primed with <|start|>assistant<|message|>
TOKENS_PER_NAME = 1  # the same
TOKENS_PER_IMAGE = 85  # Source: platform.openai.com/docs/guides/images, detail "low"
COMPLETION_ESTIMATE = 15  # Source: OpenAI cookbook, api_request_parallel_processor.py

_REASONING_MODELS = ("o1", "o3", "o4", "gpt-5")


def count_tokens(text: str) -> int:
    """The tokens of a text."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def cut_to(text: str, *, tokens: int) -> str:
    """The beginning of a text, ``tokens`` long."""
    return text[: tokens * CHARACTERS_PER_TOKEN]


def is_reasoning(openai_model: str) -> bool:
    """Whether the model bills tokens that it thought with."""
    return openai_model.startswith(_REASONING_MODELS)
