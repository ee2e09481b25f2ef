"""Everything that the service remembers, in one SQLite database. Each statement is a transaction of its own."""

import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from . import _crm

Row = dict[str, Any]

# The ids are made of the row's number: the same calls give the same ids in every run.
SCHEMA = """
CREATE TABLE IF NOT EXISTS conversation (
    n INTEGER PRIMARY KEY, id TEXT AS (printf('conv_%06d', n)), user_id TEXT, title TEXT, context TEXT,
    memory TEXT DEFAULT '{}', archived INTEGER DEFAULT 0, created_at TEXT, last_message_at TEXT);
CREATE UNIQUE INDEX IF NOT EXISTS conversation_id ON conversation (id);
CREATE TABLE IF NOT EXISTS message (
    n INTEGER PRIMARY KEY, id TEXT AS (printf('msg_%06d', n)), conversation_id TEXT, role TEXT, content TEXT,
    tool_name TEXT, tool_output TEXT, created_at TEXT);
CREATE INDEX IF NOT EXISTS message_conversation ON message (conversation_id);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5 (text, conversation_id UNINDEXED);
CREATE TABLE IF NOT EXISTS task (
    n INTEGER PRIMARY KEY, id TEXT AS (printf('task_%06d', n)), type TEXT, status TEXT DEFAULT 'pending',
    description TEXT, metadata TEXT, created_at TEXT, due_at TEXT, outcome TEXT);
CREATE TABLE IF NOT EXISTS list (id TEXT PRIMARY KEY, name TEXT);
CREATE TABLE IF NOT EXISTS member (list_id TEXT, person_id TEXT, UNIQUE (list_id, person_id));
CREATE TABLE IF NOT EXISTS campaign (name TEXT, list_id TEXT, email TEXT, started_at TEXT);
CREATE TABLE IF NOT EXISTS recording (
    key TEXT PRIMARY KEY, fingerprint TEXT, conversation_id TEXT, body BLOB, created_at TEXT);
CREATE TABLE IF NOT EXISTS balance (credits INTEGER);
"""

KEY_LIFETIME = timedelta(hours=24)


def now() -> datetime:
    """Read the clock: the only place of the sandbox that does."""
    return datetime.now(UTC)


def stamp(moment: datetime) -> str:
    """Write a moment so that the order of the texts is the order of the moments."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


class Store:
    """The database: `path` is its file, None keeps it in memory."""

    def __init__(self, path: str | Path | None) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        self._db.executescript(SCHEMA)
        if not self.lists():
            for seed in _crm.LISTS:
                self.add_to_list(seed.id, seed.name, seed.member_ids)

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def _run(self, sql: str, *values: object) -> list[Row]:
        with self._lock:
            return [dict(row) for row in self._db.execute(sql, values).fetchall()]

    # Credits

    @property
    def credits(self) -> int | None:
        """The balance that was saved last."""
        saved = self._run("SELECT credits FROM balance")
        return saved[0]["credits"] if saved else None

    @credits.setter
    def credits(self, balance: int) -> None:
        self._run("INSERT OR REPLACE INTO balance (rowid, credits) VALUES (1, ?)", balance)

    # Conversations

    def add_conversation(
        self, user_id: str, title: str, context: Mapping[str, str], *, archived: bool = False
    ) -> str:
        """Begin a conversation and give its id."""
        moment = stamp(now())
        [row] = self._run(
            "INSERT INTO conversation (user_id, title, context, archived, created_at, last_message_at)"
            " VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
            user_id, title, json.dumps(context), archived, moment, moment,
        )  # fmt: skip
        self._run("INSERT INTO words VALUES (?, ?)", title, row["id"])
        return row["id"]

    def conversation(self, conversation_id: str) -> Row | None:
        """Find one conversation."""
        found = self._run("SELECT * FROM conversation WHERE id = ?", conversation_id)
        return _decoded(found[0], "context", "memory") if found else None

    def conversations(
        self, search: str, filters: Mapping[str, str], *, archived: bool, offset: int, limit: int
    ) -> tuple[list[Row], int]:
        """Give one page of the conversations, the latest first, and how many there are in all.

        Every word of `search` must stand in the title or in a message. `filters` has a `user_id`, and maybe
        a `contact_id` and a `deal_id`.
        """
        words = [_phrase(word) for word in search.split()]
        entities = [name for name in ("contact_id", "deal_id") if name in filters]
        where = " AND ".join(
            ["user_id = ?", "archived <= ?"]
            + [f"context ->> '{name}' = ?" for name in entities]
            + ["id IN (SELECT conversation_id FROM words WHERE words MATCH ?)"] * len(words)
        )
        values = [filters["user_id"], archived, *[filters[name] for name in entities], *words]
        [count] = self._run(f"SELECT count(*) AS total FROM conversation WHERE {where}", *values)  # noqa: S608 - made of constants
        page = self._run(
            "SELECT *, (SELECT count(*) FROM message WHERE conversation_id = conversation.id AND role <> 'tool')"  # noqa: S608 - the same
            f" AS message_count FROM conversation WHERE {where} ORDER BY last_message_at DESC, n DESC LIMIT ? OFFSET ?",
            *values, limit, offset,
        )  # fmt: skip
        return [_decoded(row, "context") for row in page], count["total"]

    def remember(self, conversation_id: str, memory: Mapping[str, Any]) -> None:
        """Keep what the next message of this conversation may refer to."""
        self._run("UPDATE conversation SET memory = ? WHERE id = ?", json.dumps(memory), conversation_id)

    # Messages

    def add_message(self, conversation_id: str, role: str, content: str) -> str:
        """Add what somebody said and give its id."""
        self._run("INSERT INTO words VALUES (?, ?)", content, conversation_id)
        return self._insert_message(conversation_id, role, content)

    def add_tool_record(self, conversation_id: str, tool: str, output: Mapping[str, Any]) -> None:
        """Add what a tool gave."""
        self._insert_message(conversation_id, "tool", "", tool, json.dumps(output))

    def _insert_message(self, conversation_id: str, role: str, content: str, *tool: str) -> str:
        moment = stamp(now())
        name, output = tool or (None, None)
        [row] = self._run(
            "INSERT INTO message (conversation_id, role, content, tool_name, tool_output, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
            conversation_id, role, content, name, output, moment,
        )  # fmt: skip
        self._run("UPDATE conversation SET last_message_at = ? WHERE id = ?", moment, conversation_id)
        return row["id"]

    def messages(self, conversation_id: str, *, tools: bool, limit: int) -> list[Row]:
        """Give the last `limit` messages, the oldest first, with what tools gave or without."""
        found = self._run(
            "SELECT * FROM message WHERE conversation_id = ? AND (? OR role <> 'tool') ORDER BY n DESC LIMIT ?",
            conversation_id, tools, limit,
        )  # fmt: skip
        return [_decoded(row, "tool_output") for row in reversed(found)]

    # Tasks

    def add_task(self, kind: str, description: str, metadata: Mapping[str, Any]) -> str:
        """Propose a task and give its id."""
        [row] = self._run(
            "INSERT INTO task (type, description, metadata, created_at) VALUES (?, ?, ?, ?) RETURNING id",
            kind, description, json.dumps(metadata), stamp(now()),
        )  # fmt: skip
        return row["id"]

    def task(self, task_id: str) -> Row | None:
        """Find one task."""
        found = self._run("SELECT * FROM task WHERE id = ?", task_id)
        return _decoded(found[0], "metadata") if found else None

    def tasks(self, status: str) -> list[Row]:
        """Give all tasks that have this status, the oldest first."""
        found = self._run("SELECT * FROM task WHERE status = ? ORDER BY n", status)
        return [_decoded(row, "metadata") for row in found]

    def approve(self, task_id: str, seconds: float, outcome: str) -> None:
        """Approve a task, to end `seconds` from now as "completed" or "failed"."""
        due = stamp(now() + timedelta(seconds=seconds))
        self._run(
            "UPDATE task SET status = 'approved', due_at = ?, outcome = ? WHERE id = ?", due, outcome, task_id
        )

    def dismiss(self, task_id: str, reason: str | None) -> None:
        """Dismiss a task for good."""
        self._run("UPDATE task SET status = 'dismissed', outcome = ? WHERE id = ?", reason, task_id)

    def revise_task(self, task_id: str, metadata: Mapping[str, Any]) -> None:
        """Change what a task would do, if it is still pending."""
        self._run(
            "UPDATE task SET metadata = json_patch(metadata, ?) WHERE id = ? AND status = 'pending'",
            json.dumps(metadata), task_id,
        )  # fmt: skip

    def settle(self) -> None:
        """End the tasks whose time has come, and do what they promised."""
        ended = self._run(
            "UPDATE task SET status = outcome WHERE status = 'approved' AND due_at <= ? RETURNING *",
            stamp(now()),
        )
        for task in ended:
            if task["status"] == "completed":
                self.perform(task["type"], json.loads(task["metadata"]))

    def perform(self, kind: str, metadata: Mapping[str, Any]) -> None:
        """Change what the CRM holds."""
        if kind == "prospect_search":
            self.add_to_list(metadata["list_id"], metadata["list_name"], metadata["contact_ids"])
        else:
            campaign = [metadata[name] for name in ("name", "list_id", "email")]
            self._run("INSERT INTO campaign VALUES (?, ?, ?, ?)", *campaign, stamp(now()))

    # Lists and campaigns

    def add_to_list(self, list_id: str, name: str, person_ids: Sequence[str]) -> None:
        """Add contacts to a list, which is made if it does not exist."""
        self._run("INSERT OR IGNORE INTO list VALUES (?, ?)", list_id, name)
        for person_id in person_ids:
            self._run("INSERT OR IGNORE INTO member VALUES (?, ?)", list_id, person_id)

    def lists(self) -> dict[str, str]:
        """Give the names of the lists by their ids."""
        return {row["id"]: row["name"] for row in self._run("SELECT * FROM list ORDER BY rowid")}

    def members(self, list_id: str) -> list[str]:
        """Give the ids of the people on a list."""
        return [
            row["person_id"]
            for row in self._run("SELECT person_id FROM member WHERE list_id = ? ORDER BY rowid", list_id)
        ]

    def campaigns(self) -> list[str]:
        """Give the names of the campaigns that were started."""
        return [row["name"] for row in self._run("SELECT name FROM campaign ORDER BY rowid")]

    # Recorded streams

    def record(self, key: str, fingerprint: str, conversation_id: str, body: bytes) -> None:
        """Keep a whole stream under its idempotency key."""
        self._run(
            "INSERT OR REPLACE INTO recording VALUES (?, ?, ?, ?, ?)",
            key, fingerprint, conversation_id, body, stamp(now()),
        )  # fmt: skip

    def recording(self, key: str) -> Row | None:
        """Find the stream that was kept under a key in the last 24 hours."""
        since = stamp(now() - KEY_LIFETIME)
        found = self._run("SELECT * FROM recording WHERE key = ? AND created_at > ?", key, since)
        return found[0] if found else None


def _phrase(word: str) -> str:
    """Quote a word, so that nothing in it is an operator of FTS5."""
    return '"' + word.replace('"', '""').replace("\0", " ") + '"'


def _decoded(row: Row, *columns: str) -> Row:
    return row | {name: json.loads(row[name]) for name in columns if row[name] is not None}
