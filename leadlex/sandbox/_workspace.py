"""What happens when Lexi is asked or a task is approved: what it costs, what it changes, what is kept."""

from typing import NamedTuple

from . import _lexi
from ._bodies import Question
from ._ledger import Ledger
from ._store import Row, Store

KEPT_CONTEXT = ("contact_id", "deal_id", "matter_id", "page")
TITLE_LENGTH = 60
READ_LENGTH = 2_000  # messages of chat have no limit, and rules read slowly


class Turn(NamedTuple):
    """A message that was answered and paid for; only the telling is left."""

    conversation_id: str
    answer: _lexi.Answer
    task_id: str | None


class Workspace:
    """One workspace: `store` is what it holds, `ledger` what it pays with."""

    def __init__(self, store: Store, ledger: Ledger, task_seconds: float) -> None:
        self.store, self.ledger, self._task_seconds = store, ledger, task_seconds

    def take(self, question: Question, user_id: str, what: str, key: str | None = None) -> Turn:
        """Answer a message and charge it as `what`, or as the search that it does; refuse it with 402."""
        past = self._past(question.conversation_id)
        answer = self._answer(question, past)
        self.charge(answer.action.type if answer.action and answer.action.at_once else what, key)
        return self._carry_out(question, answer, past, user_id)

    def retake(self, question: Question, user_id: str, conversation_id: str) -> Turn:
        """Answer a message again, in the conversation that it was in, in other words and free of charge."""
        past = self._past(conversation_id)
        return self._carry_out(question, _lexi.reworded(self._answer(question, past)), past, user_id)

    def finish(self, turn: Turn) -> str:
        """Keep the reply, now that it was told, and give its id."""
        return self.store.add_message(turn.conversation_id, "assistant", turn.answer.text)

    def approve(self, task: Row) -> bool:
        """Approve a task and tell whether there are credits to start it; without, it fails."""
        starts = self.ledger.affords(task["type"])
        if starts:
            self.charge(task["type"])
        self.store.decide(task["id"], "approved", "completed" if starts else "failed", self._task_seconds)
        return starts

    def charge(self, what: str, key: str | None = None) -> None:
        """Take the price of something, or refuse it with 402."""
        self.ledger.charge(what, key)
        self.store.save_balance(self.ledger.balance)

    def _past(self, conversation_id: str | None) -> Row:
        """Give the conversation that a message continues, or the likeness of one that it begins."""
        return self.store.conversation(conversation_id) or {"id": None, "context": {}, "memory": {}}

    def _answer(self, question: Question, past: Row) -> _lexi.Answer:
        context = past["context"] | question.context
        message, lists = question.message[:READ_LENGTH], self.store.lists()
        ask = _lexi.Ask(message, context, past["memory"], lists, self.store.campaigns())
        return _lexi.answer(ask, allow_tools=question.allow_tools)

    def _carry_out(self, question: Question, answer: _lexi.Answer, past: Row, user_id: str) -> Turn:
        """Keep the message, and do or propose what the answer wants done."""
        conversation_id = past["id"] or self._open(question, user_id)
        self.store.add_message(conversation_id, "user", question.message)
        if answer.tool:
            output = {"summary": answer.summary}
            self.store.add_message(conversation_id, "tool", "", tool_name=answer.tool, tool_output=output)
        if answer.revision:
            self.store.revise(past["memory"]["campaign_start"], answer.revision)
        task_id = self._act(answer.action) if answer.action else None
        proposed = {answer.action.type: task_id} if answer.action else {}
        self.store.remember(conversation_id, past["memory"] | answer.memory | proposed)
        return Turn(conversation_id, answer, task_id)

    def _open(self, question: Question, user_id: str) -> str:
        context = {name: value for name, value in question.context.items() if name in KEPT_CONTEXT}
        return self.store.add_conversation(user_id, question.message[:TITLE_LENGTH], context)

    def _act(self, action: _lexi.Action) -> str | None:
        """Do something at once, or propose it and give the task's id."""
        if not action.at_once:
            return self.store.add_task(action.type, action.description, action.metadata)
        self.store.add_found(action.metadata)
        return None
