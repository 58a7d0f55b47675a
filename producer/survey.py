"""What the rows of an input will ask of the API, added up row by row; nothing is sent.

Memory does not grow with the input.
"""

from __future__ import annotations

from dataclasses import dataclass

from flavor.errors import RowError
from flavor.model import OpenAIModel
from flavor.tokenizer import Tokenizer, encoding_of, exact_tokenizer, tokenizer_by_characters
from flavor.tokens import answers_per_row, prompt_tokens
from flavor.types import Row, Task
from producer.intake import Asked

ASSUMED_ANSWER = (16, 256)
"""Tokens of a chat's answer that nothing bounds: from a label with its reason to a paragraph."""


def find_tokenizer(openai_model: str) -> Tokenizer:
    """The best way to count a model's tokens on this machine, without the network."""
    encoding = encoding_of(openai_model)
    return exact_tokenizer(encoding) or tokenizer_by_characters(encoding)


@dataclass(slots=True)
class Survey:
    """The sums so far. ``answers_low`` and ``answers_high`` bound the tokens of all answers."""

    model: OpenAIModel | None  # None for a pyfunc: its rows are counted and nothing else
    tokenizer: Tokenizer
    rows: int = 0
    unsendable: int = 0  # their template cannot be filled: the job will reject them unpaid
    unbounded: int = 0  # rows whose answers nothing bounds
    prompt: int = 0
    answers_low: int = 0
    answers_high: int = 0

    @classmethod
    def over(cls, asked: Asked) -> Survey:
        """A survey of a job's rows, counting with what this machine has."""
        is_pyfunc = asked.model.task is Task.PYFUNC
        model = None if is_pyfunc else OpenAIModel(asked.model, asked.options.params)
        return cls(model, find_tokenizer(model.openai_model if model else ""))

    def add(self, row: Row) -> int:
        """Count a row; returns its prompt's tokens, 0 where it cannot be sent."""
        self.rows += 1
        if self.model is None:
            return 0
        try:
            request = self.model.request([row])
        except RowError:
            self.unsendable += 1
            return 0
        task = self.model.spec.task
        asked = prompt_tokens(task, request.body, self.tokenizer.count)
        self.prompt += asked
        if task is Task.EMBEDDINGS:
            return asked
        answers = answers_per_row(request.body)
        if request.is_answer_bounded or task is Task.COMPLETIONS:  # bounded by the API itself
            self.answers_low += answers
            self.answers_high += request.answer_tokens
        else:
            self.unbounded += 1
            self.answers_low += answers * ASSUMED_ANSWER[0]
            self.answers_high += answers * ASSUMED_ANSWER[1]
        return asked
