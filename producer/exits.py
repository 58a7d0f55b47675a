"""What a command's exit status says of a job."""

from __future__ import annotations

from worker.jobs import JobState
from worker.status import JobStatus

DEAD_ROWS = 3
STOPPED = 4


def exit_status(status: JobStatus) -> int:
    """0 all rows succeeded; 3 completed with dead rows; 4 paused or cancelled; 1 failed."""
    if status.state is JobState.COMPLETED:
        return DEAD_ROWS if status.rows_dead else 0
    if status.state in (JobState.PAUSED, JobState.CANCELLED):
        return STOPPED
    return 1 if status.state is JobState.FAILED else 0
