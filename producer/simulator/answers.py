"""What the simulated model says: short, fast to make, and dependent on the prompt.

Enough for a demo to look sensible and for a test to tell rows apart; never to be mistaken
for a model's work: what is not a label or a number starts with ``[simulated]``.
"""

import re
from dataclasses import dataclass
from typing import Any

import orjson

from producer.simulator.draws import draw_int
from producer.simulator.requests import ModelRequest
from producer.simulator.schemas import conforming
from producer.simulator.tokens import count_tokens, cut_to, is_reasoning

SUMMARY_WORDS = 12
READ_CHARACTERS = 8000  # of a long prompt, what the heuristics look at
HUGE_WORDS = 200_000

_NUMBER = re.compile(r"[0-9]")
_PUNCTUATION = b'.,;:!?()[]"'
_NEGATION = 0


def _weights(weight: int, *, words: str) -> dict[bytes, int]:
    return dict.fromkeys(words.encode().split(), weight)


_WEIGHTS = {
    **_weights(
        _NEGATION, words="not no never hardly isn't wasn't don't doesn't didn't can't won't"
    ),
    **_weights(
        1,
        words="good great excellent perfect love loves loved like likes liked best better nice easy"
        " happy recommend recommended amazing awesome fantastic wonderful works worked fast sharp"
        " beautiful clear reliable comfortable impressed pleased sturdy solid superb enjoy enjoyed"
        " fine worth thanks satisfied durable quiet bright crisp helpful favorite",
    ),
    **_weights(
        -1,
        words="bad poor terrible awful horrible hate hated worst worse broken broke break problem"
        " problems issue issues slow disappointed disappointing useless waste fail failed fails"
        " return returned refund cheap noisy hard difficult annoying defective trouble error errors"
        " crash dead wrong unhappy junk flimsy expensive weak lacks missing blurry stopped"
        " unfortunately",
    ),
}


@dataclass(slots=True, kw_only=True)  # not frozen: see ``ModelRequest``
class Answer:
    """One choice of an answer."""

    content: str | None
    finish_reason: str
    tokens: int  # reasoning included
    reasoning_tokens: int = 0
    tool_name: str | None = None
    tool_arguments: str = ""
    refusal: str | None = None


def answer(request: ModelRequest, *, text: str, key: int, index: int, seed: int) -> Answer:
    """The answer to one row, the ``index``-th of its choices."""
    number = draw_int("answer", seed=seed, openai_model=request.openai_model, key=key, nth=index)
    thought = 64 * (1 + number % 8) if is_reasoning(request.openai_model) else 0
    if "[[refuse]]" in text:
        refusal = "[simulated] I'm sorry, but I can't help with that."
        tokens = thought + count_tokens(refusal)
        return Answer(
            content=None,
            finish_reason="stop",
            tokens=tokens,
            reasoning_tokens=thought,
            refusal=refusal,
        )
    if request.tool is not None:
        return _tool_answer(request.tool, text=text, number=number, thought=thought)
    content = _content(request, text=text, number=number)
    return _shaped(content, request=request, thought=thought)


def say(text: str, *, number: int) -> str:
    """What the model says to a prompt, before anything shapes it."""
    start = text[:READ_CHARACTERS]
    lower = start.lower()
    if "sentiment" in lower or ("positive" in lower and "negative" in lower):
        return sentiment(lower)
    if "?" in start and _NUMBER.search(start):
        return f"#### {number % 200 + 1}"
    if "[[empty]]" in start:
        return ""
    if "[[huge]]" in start:
        return "[simulated] " + "huge " * HUGE_WORDS
    return f"[simulated] {' '.join(start.split(None, SUMMARY_WORDS)[:SUMMARY_WORDS])}"


def sentiment(lower: str) -> str:
    """Positive, negative or neutral, by the words in a text of lower case."""
    # Bytes, as to split and look up words in text takes twice as long.
    words = lower.encode("ascii", "ignore").translate(None, _PUNCTUATION).split()
    score, sign = 0, 1
    for weight in map(_WEIGHTS.get, words):
        if weight is None:
            sign = 1
        elif weight == _NEGATION:
            sign = -1
        else:
            score += sign * weight
            sign = 1
    if score == 0:
        return "neutral"
    return "positive" if score > 0 else "negative"


def _content(request: ModelRequest, *, text: str, number: int) -> str:
    said = say(text, number=number)
    schema = request.json_schema
    if schema is None:
        return said
    value: Any = {"simulated": True, "answer": said}
    if schema:
        value = conforming(schema, said=said, number=number)
    return orjson.dumps(value).decode()


def _shaped(content: str, *, request: ModelRequest, thought: int) -> Answer:
    """Cut at the first stop and at the token limit, which thinking uses up first."""
    for stop in request.stop:
        content = content.partition(stop)[0]
    tokens = thought + count_tokens(content)
    most = request.max_tokens
    if most is None or tokens <= most:
        return Answer(
            content=content, finish_reason="stop", tokens=tokens, reasoning_tokens=thought
        )
    thought = min(thought, most)
    return Answer(
        content=cut_to(content, tokens=most - thought),
        finish_reason="length",
        tokens=most,
        reasoning_tokens=thought,
    )


def _tool_answer(tool: dict[str, Any], *, text: str, number: int, thought: int) -> Answer:
    schema = tool.get("parameters") or {"type": "object"}
    arguments = orjson.dumps(conforming(schema, said=say(text, number=number), number=number))
    return Answer(
        content=None,
        finish_reason="tool_calls",
        tokens=thought + count_tokens(arguments.decode()) + 4,
        reasoning_tokens=thought,
        tool_name=str(tool.get("name")),
        tool_arguments=arguments.decode(),
    )
