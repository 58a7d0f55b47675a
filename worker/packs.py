"""Which rows share a request: as many as the API takes, by count and by tokens."""

from __future__ import annotations

from collections.abc import Sequence

from flavor.errors import RowError
from flavor.model import OpenAIModel
from flavor.types import Row
from worker.jobs import Outcome, Verdict

PACK_TOKENS = 300_000
"""Most tokens in one embeddings request. Source: OpenAI's API reference, "Create embeddings"."""

_MARGIN = 0.8  # the estimate may be off; a refused pack costs two requests, a smaller one nothing


def plan_packs(rows: Sequence[Row], model: OpenAIModel) -> tuple[list[list[Row]], list[Outcome]]:
    """Group rows into requests, in order; and the outcomes of rows that cannot be rendered.

    Rows with parameters of their own share a request only with rows of the same parameters.
    """
    if model.rows_per_request == 1:
        return [[row] for row in rows], []
    packs: list[list[Row]] = []
    dead: list[Outcome] = []
    room = 0.0
    for row in rows:
        try:
            tokens = model.estimate_tokens(row)
        except RowError as error:
            dead.append(
                Outcome(
                    row_id=row.row_id,
                    index=row.index,
                    verdict=Verdict.REJECTED,
                    error=error.info,
                )
            )
            continue
        pack = packs[-1] if packs else []
        fits = len(pack) < model.rows_per_request and tokens <= room
        if pack and fits and pack[0].params == row.params:
            pack.append(row)
        else:
            packs.append([row])
            room = PACK_TOKENS * _MARGIN
        room -= tokens
    return packs, dead
