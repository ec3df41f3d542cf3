"""The errors that a user may see, and how each is shown: a sentence, the key, the value, the remedy; never a traceback."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong with an input, said so that its author can mend it.

    where: file, stack or flag (``catalog/tools/reports.yaml``); key: dotted path inside it (``grants[0].actions``);
    message: what is wrong, with the value; remedy: what to write instead. line: 1-based, 0 when unknown.
    """

    where: str
    key: str
    message: str
    remedy: str = ""
    line: int = 0

    def __str__(self) -> str:
        place = f"{self.where}:{self.line}" if self.line else self.where
        head = ": ".join(part for part in (place, self.key, self.message) if part)
        return f"{head}\n    remedy: {self.remedy}" if self.remedy else head


class RingfenceError(Exception):
    """A failure with a message fit for a terminal. The CLI prints it and exits with `exit_code` (1)."""

    exit_code = 1


class InputError(RingfenceError):
    """Bad input: every problem of the file or settings at once. The CLI prints all and exits with 2."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem]):
        self.problems: tuple[Problem, ...] = tuple(problems)
        count = len(self.problems)
        head = f"{count} problem{'s' if count != 1 else ''}:"
        super().__init__(
            "\n".join([head, *(f"  {index}. {problem}" for index, problem in enumerate(self.problems, 1))])
        )
