"""Which rows share a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from flavor.errors import RowError
from flavor.model import OpenAIModel
from flavor.types import Row
from tests.unit.worker.fakes import ScriptedModel
from tests.unit.worker.making import error_info, make_rows
from worker.jobs import Outcome, Verdict
from worker.packs import PACK_TOKENS, plan_packs


def _plan(rows: Sequence[Row], model: ScriptedModel) -> tuple[list[list[int]], list[Outcome]]:
    packs, dead = plan_packs(rows, cast("OpenAIModel", model))
    return [[row.index for row in pack] for pack in packs], dead


def test_completions_go_one_by_one() -> None:
    assert _plan(make_rows(3), ScriptedModel()) == ([[0], [1], [2]], [])


def test_as_many_rows_as_the_api_takes_share_a_request() -> None:
    packs, _ = _plan(make_rows(5000), ScriptedModel(rows_per_request=2048))

    assert [len(pack) for pack in packs] == [2048, 2048, 904]
    assert [index for pack in packs for index in pack] == list(range(5000))


def test_a_pack_holds_no_more_tokens_than_the_api_takes() -> None:
    model = ScriptedModel(rows_per_request=2048, tokens_per_row=50_000)

    packs, _ = _plan(make_rows(10), model)

    assert [len(pack) for pack in packs] == [4, 4, 2]
    assert all(len(pack) * 50_000 <= PACK_TOKENS for pack in packs)


def test_a_row_larger_than_a_pack_goes_alone() -> None:
    rows = [*make_rows(1), *make_rows(1, first=1, tokens=10**6), *make_rows(2, first=2)]

    packs, _ = _plan(rows, ScriptedModel(rows_per_request=2048))

    assert packs == [[0], [1], [2, 3]]


def test_rows_with_other_params_go_apart() -> None:
    def row(index: int, dimensions: int | None) -> Row:
        params = {"dimensions": dimensions} if dimensions else None
        return Row(row_id=f"r{index}", index=index, values={}, params=params)

    rows = [row(0, None), row(1, 8), row(2, 8), row(3, 16), row(4, None)]

    packs, _ = _plan(rows, ScriptedModel(rows_per_request=10))

    assert packs == [[0], [1, 2], [3], [4]]


def test_rows_that_cannot_be_rendered_are_dead_and_the_others_packed() -> None:
    model = ScriptedModel(rows_per_request=10)
    model.refused["r1"] = RowError(error_info("no text"))

    packs, dead = _plan(make_rows(4), model)

    assert packs == [[0, 2, 3]]
    assert [(o.row_id, o.index, o.verdict, o.attempts) for o in dead] == [
        ("r1", 1, Verdict.REJECTED, 0)
    ]
    assert dead[0].error == error_info("no text")


def test_no_rows_make_no_packs() -> None:
    assert _plan([], ScriptedModel(rows_per_request=10)) == ([], [])
