"""Everything that the service remembers, in one SQLite database. Each statement is its own transaction."""

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from datetime import datetime, timedelta
from os import PathLike
from typing import Any

from . import _crm
from ._clock import Clock

Row = dict[str, Any]

# Ids are made of the number of the row: the same calls give the same ids in every run.
SCHEMA = """
PRAGMA synchronous = OFF;  -- a killed process loses nothing, a dead machine may
CREATE TABLE IF NOT EXISTS conversation (
    n INTEGER PRIMARY KEY, id TEXT AS (printf('conv_%06d', n)), user_id TEXT, title TEXT, context TEXT,
    memory TEXT DEFAULT '{}', archived INTEGER, created_at TEXT, last_message_at TEXT);
CREATE UNIQUE INDEX IF NOT EXISTS conversation_id ON conversation (id);
CREATE TABLE IF NOT EXISTS message (
    n INTEGER PRIMARY KEY, id TEXT AS (printf('msg_%06d', n)), conversation_id TEXT, role TEXT, content TEXT,
    tool_name TEXT, tool_output TEXT, created_at TEXT, tool_calls TEXT);
CREATE INDEX IF NOT EXISTS message_conversation ON message (conversation_id);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5 (text, conversation_id UNINDEXED);
CREATE TABLE IF NOT EXISTS task (
    n INTEGER PRIMARY KEY, id TEXT AS (printf('task_%06d', n)), type TEXT, status TEXT DEFAULT 'pending',
    description TEXT, metadata TEXT, created_at TEXT, due_at TEXT, outcome TEXT);
CREATE TABLE IF NOT EXISTS member (list_id TEXT, list_name TEXT, name TEXT, UNIQUE (list_id, name));
CREATE TABLE IF NOT EXISTS recording (
    key TEXT PRIMARY KEY, fingerprint TEXT, conversation_id TEXT, body BLOB, created_at TEXT);
CREATE TABLE IF NOT EXISTS account (id INTEGER PRIMARY KEY, balance INTEGER);
"""
# What a conversation must be to be listed; `ids` is null or narrows them down.
LISTED = """
FROM conversation WHERE user_id = :user_id AND archived <= :archived
AND (:contact_id IS NULL OR json_extract(context, '$.contact_id') = :contact_id)
AND (:deal_id IS NULL OR json_extract(context, '$.deal_id') = :deal_id)
AND (:ids IS NULL OR id IN (SELECT value FROM json_each(:ids)))
"""
COUNT = "SELECT count(*) AS total" + LISTED
MESSAGES = "SELECT count(*) FROM message WHERE conversation_id = conversation.id AND role <> 'tool'"
ORDER = "ORDER BY last_message_at DESC, n DESC LIMIT :limit OFFSET :offset"
PAGE = f"SELECT *, ({MESSAGES}) AS message_count {LISTED} {ORDER}"
TABLES = ("conversation", "message", "words", "task", "member", "recording", "account")
KEY_LIFETIME = timedelta(hours=24)
FOUND = {"list_id", "list_name", "contacts"}  # what a search's task tells of its outcome
MEMORY = ":memory:"  # SQLite's name for no file


def stamp(moment: datetime) -> str:
    """Write a moment so that the order of the texts is the order of the moments."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


class Store:
    """The database: `path` is its file, None keeps it in memory; OSError says that the file can't be used."""

    def __init__(self, path: str | PathLike[str] | None, clock: Clock) -> None:
        self._lock, self._clock = threading.Lock(), clock
        try:
            self._db = _open(path or MEMORY)
        except sqlite3.Error as error:
            raise OSError(f"The sandbox can't keep its data in {path}: {error}") from error
        self._add_lists()

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def reset(self) -> None:
        """Forget everything but what is there from the beginning."""
        for table in TABLES:
            self._run(f"DELETE FROM {table}")  # noqa: S608 - a name of this file
        self._add_lists()

    def _add_lists(self) -> None:
        for list_id, name, members in _crm.LISTS:
            self.add_to_list(list_id, name, members)

    def _run(self, sql: str, values: Sequence[object] | Mapping[str, object] = ()) -> list[Row]:
        with self._lock:
            return [_decoded(dict(row)) for row in self._db.execute(sql, values).fetchall()]

    def _one(self, sql: str, *values: object) -> Row | None:
        return next(iter(self._run(sql, values)), None)

    def _insert(self, table: str, **columns: object) -> str:
        # The names of tables and columns all stand in this class.
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        values = [json.dumps(value) if isinstance(value, dict | list) else value for value in columns.values()]
        sql = f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({marks}) RETURNING *"  # noqa: S608
        return str(self._run(sql, values)[0].get("id"))

    # Conversations and messages

    def add_conversation(self, user_id: str, title: str, context: Row, *, archived: bool = False) -> str:
        """Begin a conversation and give its id."""
        named = {"user_id": user_id, "title": title, "context": context, "archived": archived}
        moment = stamp(self._clock.now())
        conversation_id = self._insert("conversation", **named, created_at=moment, last_message_at=moment)
        self._insert("words", text=title, conversation_id=conversation_id)
        return conversation_id

    def conversation(self, conversation_id: str | None) -> Row | None:
        """Find one conversation."""
        return self._one("SELECT * FROM conversation WHERE id = ?", conversation_id)

    def conversations(
        self, filters: Mapping[str, str], *, archived: bool, offset: int, limit: int
    ) -> tuple[list[Row], int]:
        """Give some of the conversations, the latest first, and how many there are in all.

        `filters` has a `user_id` and maybe `contact_id`, `deal_id` and `search`: words that the title and the
        messages must have.
        """
        values: Row = {name: filters.get(name) for name in ("user_id", "contact_id", "deal_id")}
        values |= {"archived": archived, "ids": self._with_words(filters.get("search", "").split())}
        page = self._run(PAGE, values | {"offset": offset, "limit": limit})
        return page, self._run(COUNT, values)[0]["total"]

    def _with_words(self, words: Iterable[str]) -> str | None:
        """Give, as JSON, the ids of the conversations that have all words; None if there are no words."""
        # In quotes nothing is an operator of FTS5; NUL would end the query.
        quoted = ['"' + word.replace('"', '""').replace("\0", " ") + '"' for word in words]
        sql = "SELECT conversation_id FROM words WHERE words MATCH ?"
        found = [{str(row["conversation_id"]) for row in self._run(sql, [word])} for word in quoted]
        return json.dumps(list(found[0].intersection(*found))) if found else None

    def remember(self, conversation_id: str, memory: Row) -> None:
        """Keep what the next message of this conversation may refer to."""
        self._run("UPDATE conversation SET memory = ? WHERE id = ?", [json.dumps(memory), conversation_id])

    def add_message(self, conversation_id: str, role: str, content: str, **tool: object) -> str:
        """Add what somebody said (with `tool_calls`), or what a tool gave (`tool_name`, `tool_output`): give its id."""
        said = {
            "conversation_id": conversation_id,
            "role": role,
            "content": content,
            "created_at": stamp(self._clock.now()),
        }
        sql = "UPDATE conversation SET last_message_at = :created_at WHERE id = :conversation_id"
        self._run(sql, said)
        self._insert("words", text=content, conversation_id=conversation_id)
        return self._insert("message", **said, **tool)

    def messages(self, conversation_id: str, *, tools: bool, limit: int) -> list[Row]:
        """Give the last `limit` messages, the oldest first, with what tools gave or without."""
        sql = "SELECT * FROM message WHERE conversation_id = ? AND role <> ? ORDER BY n DESC LIMIT ?"
        return self._run(sql, [conversation_id, "" if tools else "tool", limit])[::-1]

    # Tasks, and what they change

    def add_task(self, kind: str, description: str, metadata: Row) -> str:
        """Propose a task and give its id."""
        return self._insert(
            "task", type=kind, description=description, metadata=metadata, created_at=stamp(self._clock.now())
        )

    def task(self, task_id: str) -> Row | None:
        """Find one task."""
        return self._one("SELECT * FROM task WHERE id = ?", task_id)

    def tasks(self, status: str) -> list[Row]:
        """Give all tasks that have this status, the oldest first."""
        return self._run("SELECT * FROM task WHERE status = ? ORDER BY n", [status])

    def decide(self, task_id: str, status: str, outcome: str | None, seconds: float = 0) -> None:
        """Set a task's status; an approved one ends after so many seconds, its outcome is its last status."""
        sql = "UPDATE task SET status = ?, outcome = ?, due_at = ? WHERE id = ?"
        self._run(sql, [status, outcome, stamp(self._clock.now() + timedelta(seconds=seconds)), task_id])

    def revise(self, task_id: str, metadata: Row) -> None:
        """Change what a task would do, if it is still pending."""
        sql = "UPDATE task SET metadata = json_patch(metadata, ?) WHERE id = ? AND status = 'pending'"
        self._run(sql, [json.dumps(metadata), task_id])

    def settle(self) -> None:
        """End the tasks whose time has come: nothing waits for them, they end when somebody looks."""
        sql = "UPDATE task SET status = outcome WHERE status = 'approved' AND due_at <= ? RETURNING *"
        for task in self._run(sql, [stamp(self._clock.now())]):
            found = task["metadata"].keys() >= FOUND  # a task that a test added may have none
            if task["status"] == "completed" and task["type"] == "prospect_search" and found:
                self.add_found(task["metadata"])

    def add_found(self, metadata: Row) -> None:
        """Add what a prospect search found to its list."""
        self.add_to_list(metadata["list_id"], metadata["list_name"], metadata["contacts"])

    def add_to_list(self, list_id: str, list_name: str, names: Iterable[str]) -> None:
        """Add contacts to a list, which is made if it does not exist."""
        for name in names:
            self._run("INSERT OR IGNORE INTO member VALUES (?, ?, ?)", [list_id, list_name, name])

    def lists(self) -> dict[str, tuple[str, list[str]]]:
        """Give the name and the members of each list by its id."""
        lists: dict[str, tuple[str, list[str]]] = {}
        for row in self._run("SELECT * FROM member ORDER BY rowid"):
            lists.setdefault(row["list_id"], (row["list_name"], []))[1].append(row["name"])
        return lists

    def campaigns(self) -> list[str]:
        """Give the names of the campaigns that were started."""
        return [
            str(row["metadata"].get("name", row["description"]))
            for row in self.tasks("completed")
            if row["type"] == "campaign_start"
        ]

    # Recorded streams, and credits

    def record(self, key: str, fingerprint: str, conversation_id: str, body: bytes) -> None:
        """Keep a whole stream under its idempotency key."""
        recording = {"key": key, "fingerprint": fingerprint, "conversation_id": conversation_id, "body": body}
        self._insert("recording", **recording, created_at=stamp(self._clock.now()))

    def recording(self, key: str) -> Row | None:
        """Find the stream that was kept under a key in the last 24 hours."""
        since = stamp(self._clock.now() - KEY_LIFETIME)
        return self._one("SELECT * FROM recording WHERE key = ? AND created_at > ?", key, since)

    def save_balance(self, balance: int) -> None:
        """Keep how many credits are left."""
        self._insert("account", id=1, balance=balance)

    def balance(self) -> int | None:
        """Give how many credits were left, None if nobody has said yet."""
        account = self._one("SELECT * FROM account")
        return account["balance"] if account else None


def _open(path: str | PathLike[str]) -> sqlite3.Connection:
    if path != MEMORY:
        with suppress(OSError):  # a file that is there stays as it is, and SQLite tells what is wrong with the others
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with ExitStack() as undo:
        db = undo.enter_context(closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)))
        db.row_factory = sqlite3.Row
        db.executescript(SCHEMA)
        if "tool_calls" not in {column["name"] for column in db.execute("PRAGMA table_info(message)")}:
            db.execute("ALTER TABLE message ADD COLUMN tool_calls TEXT")  # a file of leadlex 0.1
        undo.pop_all()
        return db


def _decoded(row: Row) -> Row:
    """Read the columns that hold JSON."""
    columns = ("context", "memory", "metadata", "tool_output", "tool_calls")
    return row | {name: json.loads(row[name]) for name in columns if row.get(name)}
