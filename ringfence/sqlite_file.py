"""SQLite files as the control side keeps them: one connection for all threads of a process, whole transactions, mode 0600.

Trust zone: control side.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# How long a writer waits for another process's write; each takes milliseconds.
BUSY_SECONDS = 30.0


class SqliteFile:
    """The file `path`, made with its folder when missing, in WAL mode. Methods may be called from any thread.

    Threads take turns at a lock. Connections of their own would wait for each other by SQLite's polling, up to 0.1 s
    between two tries: on a slow disk with many writers some thread always finds the file taken, until its patience ends.

    failed: makes the error that is raised in place of SQLite's and the file system's; synchronous: ``FULL`` (a transaction
    is on disk when it ends) or ``NORMAL`` (it may be lost with the machine's power, not with the process).
    """

    def __init__(self, path: Path, failed: Callable[[OSError | sqlite3.Error], Exception], synchronous: str = "FULL"):
        self._failed = failed
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._connection = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute(f"PRAGMA synchronous={synchronous}")
        except (OSError, sqlite3.Error) as error:
            raise failed(error) from None

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """This thread's turn; each statement is a transaction of its own."""
        with self._lock:
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise self._failed(error) from None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """This thread's turn in one transaction, which has the write lock from its start on: what is read inside can't change
        before it is written. An exception undoes it."""
        with self.connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # SQLite undoes some failed transactions by itself.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Closes the file; nothing is lost without it."""
        with self._lock:
            self._connection.close()
