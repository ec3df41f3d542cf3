"""What a control side's own process prints: exact secrets are masked in logs, tracebacks and prints, in real processes."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ringfence.redaction.output import WITHHELD, MaskedStream
from ringfence.redaction.redactor import Redactor, spellings

ROOT = Path(__file__).resolve().parents[2]
# Of no shape that a pattern knows.
SECRET = "correct-horse-battery-staple-42"
PROGRAM = """
import contextlib, logging, sys
from ringfence.redaction.output import MaskedOutput
secret, known = sys.argv[1], sys.argv[2] == "known"
output = MaskedOutput().install()
logging.basicConfig(force=True)
with output.also(lambda: [secret]) if known else contextlib.nullcontext():
    logging.getLogger("a").error("the session %s was refused", secret)
    try:
        raise ValueError(f"bad token {secret}")
    except ValueError:
        logging.getLogger("b").exception("it failed")
    print("printed", secret)
    for letter in secret:
        sys.stdout.write(letter)
    sys.stdout.flush()
    print()
# Afterwards, with a line that never ends, and in the traceback that ends the process.
print("after", secret, end="")
raise RuntimeError(secret)
"""
SERVE = """
import contextlib, logging, sys, types
from ringfence.service import commands
secret = sys.argv[1]
@contextlib.asynccontextmanager
async def control(*given):
    def start():
        logging.getLogger("ringfence.runner").error("a credential: %s", secret)
        raise RuntimeError(f"it broke with {secret}")
    yield types.SimpleNamespace(secrets=lambda: frozenset({secret}), runner=types.SimpleNamespace(start=start))
commands._control = control
commands.serve(["--port", "0", "--oidc-issuer", "https://idp.example.com", "--oidc-audience", "x"], standalone_mode=False)
"""


def run(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1, done.stderr
    return done.stdout + done.stderr


def test_a_process_that_logs_prints_and_dies_with_a_secret_shows_none() -> None:
    shown = run(PROGRAM, SECRET, "known")
    assert SECRET not in shown
    assert shown.count("[redacted:value]") >= 6
    assert "it failed" in shown and "RuntimeError" in shown


def test_the_same_process_shows_it_where_the_exact_value_is_not_known() -> None:
    assert run(PROGRAM, SECRET, "unknown").count(SECRET) >= 6


def test_the_service_masks_what_its_control_side_knows_also_in_the_traceback_that_ends_it() -> None:
    shown = run(SERVE, SECRET)
    assert SECRET not in shown
    assert "a credential: [redacted:value]" in shown
    assert "it broke with [redacted:value]" in shown


@pytest.mark.parametrize("form", sorted(spellings(SECRET)))
def test_every_spelling_is_masked_however_it_is_cut_into_writes(form: str) -> None:
    for size in (1, 3, 7, 1000):
        stream = io.StringIO()
        masked = MaskedStream(stream, Redactor(lambda: [SECRET]))
        text = f"x {form} y\n"
        for start in range(0, len(text), size):
            masked.write(text[start : start + size])
            masked.flush()
        assert form not in stream.getvalue()
        assert stream.getvalue().endswith(" y\n")


def test_text_that_can_not_be_masked_is_withheld() -> None:
    def broken() -> list[str]:
        raise OSError("the ledger is gone")

    stream = io.StringIO()
    MaskedStream(stream, Redactor(broken)).write(f"{SECRET}\n")
    assert stream.getvalue() == f"{WITHHELD}\n"


def test_lines_of_many_threads_stay_whole() -> None:
    stream = io.StringIO()
    masked = MaskedStream(stream, Redactor())
    threads = [threading.Thread(target=lambda n=n: [masked.write(f"line {n}\n") for _ in range(200)]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(set(stream.getvalue().splitlines())) == [f"line {n}" for n in range(8)]
    assert stream.getvalue().count("\n") == 1600


def test_ordinary_output_passes_unchanged_and_a_stream_keeps_its_own_nature() -> None:
    stream = io.StringIO()
    masked = MaskedStream(stream, Redactor())
    masked.writelines(["a\n", "b"])
    assert stream.getvalue() == "a\n"
    masked.finish()
    assert stream.getvalue() == "a\nb"
    assert masked.isatty() is False
