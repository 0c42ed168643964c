"""Is an answer right? Answers, choices and programs; every grader returns a Grade."""

from dataclasses import dataclass

STATUSES = ("correct", "wrong", "no_answer", "truncated", "timeout", "error")
UNDECIDED = ("timeout", "error")  # the answer was there, and could not be compared


@dataclass(frozen=True)
class Grade:
    """status: one of STATUSES. extracted: the answer that was compared, or None. detail: why, in one line."""

    status: str
    extracted: str | None
    detail: str = ""
