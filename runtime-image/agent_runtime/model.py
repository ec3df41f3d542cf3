"""Model calls, each within the conversation's budget."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from agent_runtime.budget import Reservation
from agent_runtime.errors import GatewayError
from agent_runtime.shapes import OPENAI, SHAPES, Shape
from agent_runtime.telemetry import trace_headers

if TYPE_CHECKING:
    from agent_runtime.executor import InstrumentedAgentExecutor

MAX_OUTPUT_TOKENS = 4096


@dataclass(slots=True)
class ModelCall:
    """One call between its reservation and its settlement."""

    model: str
    reservation: Reservation
    tokens: tuple[int, int] | None = None
    unbilled: bool = False
    delayed: bool = False

    def used(self, input_tokens: object, output_tokens: object) -> None:
        """Says what the provider counted. Anything but two whole numbers leaves the worst case in place."""
        counts = (input_tokens, output_tokens)
        if all(isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in counts):
            self.tokens = counts  # type: ignore[assignment]

    def refused(self) -> None:
        """Says that the call never reached a provider, so that it cost nothing."""
        self.unbilled = True

    def later(self) -> None:
        """Says that the call may be made later, so that it is no failure."""
        self.delayed = True


class Complete(Protocol):
    """Sends one call (e.g. `GatewayClient.chat`): body, timeout in seconds, further headers."""

    def __call__(self, body: Mapping[str, Any], timeout: float, headers: Mapping[str, str]) -> dict[str, Any]: ...


class BudgetedModel:
    """A chat model that reserves before and settles after each call.

    complete: sends the request; model: name as the price table knows it; max_output_tokens: bound sent with every
    request, since without one no worst case exists; shape: of the API that serves the model.
    """

    def __init__(
        self,
        executor: InstrumentedAgentExecutor,
        complete: Complete,
        model: str,
        max_output_tokens: int = MAX_OUTPUT_TOKENS,
        shape: Shape = SHAPES[OPENAI],
    ):
        self._executor = executor
        self._complete = complete
        self._model = model
        self._max_output_tokens = max_output_tokens
        self._shape = shape

    def __call__(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
    ) -> Mapping[str, Any]:
        """The model's answer in OpenAI's shape, whatever the API's. Raises Stopped, GatewayError."""
        body = self._shape.request(self._model, messages, tools, self._max_output_tokens)
        size = len(json.dumps(body, ensure_ascii=False).encode())
        with self._executor.model_call(self._model, size, self._max_output_tokens) as call:
            try:
                answer = self._complete(body, self._executor.deadline.remaining(), trace_headers())
            except GatewayError as error:
                # The gateway refuses before it calls the provider.
                if 400 <= error.status < 500:
                    call.refused()
                if error.status == 429:
                    call.later()
                raise
            answer = self._shape.answer(answer)
            usage = answer.get("usage")
            if isinstance(usage, Mapping):
                call.used(usage.get("prompt_tokens"), usage.get("completion_tokens"))
            return answer
