"""What happens when Lexi is asked or a task is approved: what it costs, what it changes, what is kept of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import _lexi
from ._access import Ledger
from ._bodies import Question
from ._store import Store

SHOWN_CONTEXT = ("contact_id", "deal_id", "matter_id", "page")
TITLE_LENGTH = 60


@dataclass(frozen=True, slots=True)
class Turn:
    """A message that was answered and paid for; only the telling is left."""

    conversation_id: str
    answer: _lexi.Answer
    task_id: str | None


class Workspace:
    """One workspace: `store` is what it holds, `ledger` what it pays with."""

    def __init__(self, store: Store, ledger: Ledger, task_seconds: float) -> None:
        self.store, self.ledger = store, ledger
        self._task_seconds = task_seconds

    def take(self, question: Question, user_id: str, what: str, key: str | None = None) -> Turn:
        """Answer a message and charge it; 402 if there are too few credits."""
        conversation = self._conversation(question)
        answer = self._answer(question, conversation)
        self._charge(
            "prospect_search" if answer.credits == _lexi.SEARCH_CREDITS else what, answer.credits, key
        )
        return self._carry_out(question, answer, conversation, user_id)

    def retake(self, question: Question, user_id: str, conversation_id: str) -> Turn:
        """Answer a message again in the conversation that it began, in other words and free of charge."""
        conversation = self.store.conversation(conversation_id)
        answer = _lexi.reworded(self._answer(question, conversation))
        return self._carry_out(question, answer, conversation, user_id)

    def finish(self, turn: Turn) -> str:
        """Keep the reply, now that it was told, and give its id."""
        return self.store.add_message(turn.conversation_id, "assistant", turn.answer.text)

    def approve(self, task: Mapping[str, Any]) -> bool:
        """Approve a task and tell whether there are credits to start it; without, it fails."""
        credits = _lexi.TASK_CREDITS[task["type"]]
        starts = credits <= self.ledger.credits
        if starts and credits:
            self._charge(task["type"], credits)
        self.store.approve(task["id"], self._task_seconds, "completed" if starts else "failed")
        return starts

    def _conversation(self, question: Question) -> Mapping[str, Any] | None:
        return self.store.conversation(question.conversation_id) if question.conversation_id else None

    def _answer(self, question: Question, conversation: Mapping[str, Any] | None) -> _lexi.Answer:
        before = conversation or {"context": {}, "memory": {}}
        ask = _lexi.Ask(
            question.message,
            context=before["context"] | question.context,
            memory=before["memory"],
            lists=self.store.lists(),
            members=self.store.members,
            campaigns=self.store.campaigns(),
        )
        return _lexi.answer(ask, allow_tools=question.allow_tools)

    def _charge(self, what: str, credits: int, key: str | None = None) -> None:
        self.ledger.charge(what, credits, key)
        self.store.credits = self.ledger.credits

    def _carry_out(
        self, question: Question, answer: _lexi.Answer, conversation: Mapping[str, Any] | None, user_id: str
    ) -> Turn:
        """Keep the message, and do or propose what the answer wants done."""
        conversation_id = conversation["id"] if conversation else self._open(question, user_id)
        memory = conversation["memory"] if conversation else {}
        self.store.add_message(conversation_id, "user", question.message)
        if answer.tool:
            self.store.add_tool_record(conversation_id, answer.tool, {"summary": answer.summary})
        if answer.revision and "task_id" in memory:
            self.store.revise_task(memory["task_id"], answer.revision)
        task_id = self._act(answer.action)
        kept = {"task_id": task_id} if task_id else {}
        self.store.remember(conversation_id, memory | answer.memory | kept)
        return Turn(conversation_id, answer, task_id)

    def _open(self, question: Question, user_id: str) -> str:
        shown = {name: value for name, value in question.context.items() if name in SHOWN_CONTEXT}
        return self.store.add_conversation(user_id, question.message[:TITLE_LENGTH], shown)

    def _act(self, action: _lexi.Action | None) -> str | None:
        """Do what an answer wants done, or propose it as a task and give the task's id."""
        if action is None:
            return None
        if action.needs_approval:
            return self.store.add_task(action.type, action.description, action.metadata)
        self.store.perform(action.type, action.metadata)
        return None
