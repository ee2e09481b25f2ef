"""What happens when Lexi is asked or a task is approved: what it costs, what it changes, what is kept."""

from typing import NamedTuple

from . import _lexi
from ._bodies import Question
from ._ledger import Ledger, Prices
from ._script import Script
from ._store import Row, Store

KEPT_CONTEXT = ("contact_id", "deal_id", "matter_id", "page")
TITLE_LENGTH = 60
READ_LENGTH = 2_000  # messages of chat have no limit, and rules read slowly


class Turn(NamedTuple):
    """A message that was answered and paid for; only the telling is left."""

    conversation_id: str
    reply: _lexi.Reply
    task_id: str | None


class Workspace:
    """One workspace: `store` is what it holds, `ledger` what it pays with, `script` what a test wants it to say."""

    def __init__(self, store: Store, ledger: Ledger, prices: Prices, script: Script, task_seconds: float) -> None:
        self.store, self.ledger, self._task_seconds = store, ledger, task_seconds
        self._prices, self._script = prices, script

    def take(self, question: Question, user_id: str, what: str, key: str | None = None) -> Turn:
        """Answer a message and charge it as `what`, or as the search that it does; refuse it with 402."""
        past = self._past(question.conversation_id)
        if self._script.answers:
            scripted = self._script.answers[0]
            usual = self._price(what, scripted.reply)
            self._charge(what, usual if scripted.price is None else scripted.price, key)
            return self._recite(question, past, user_id)
        answer = self._answer(question, past)
        if answer.action and answer.action.at_once:
            self._charge(answer.action.type, self._prices.search, key)
        else:
            self._charge(what, self._price(what, answer.reply), key)
        return self._carry_out(question, answer, past, user_id)

    def retake(self, question: Question, user_id: str, conversation_id: str) -> Turn:
        """Answer a message again, in the conversation that it was in, in other words and free of charge."""
        past = self._past(conversation_id)
        if self._script.answers:
            return self._recite(question, past, user_id)
        return self._carry_out(question, _lexi.reworded(self._answer(question, past)), past, user_id)

    def finish(self, turn: Turn) -> str:
        """Keep the reply, now that it was told, and give its id."""
        calls = [{"tool": step.tool} for step in turn.reply.tools]
        return self.store.add_message(turn.conversation_id, "assistant", turn.reply.text, tool_calls=calls or None)

    def approve(self, task: Row, *, fails: bool) -> bool:
        """Approve a task and tell whether there are credits to start it; without, or where it `fails`, it fails."""
        price = self._prices.search if task["type"] == "prospect_search" else 0
        starts = price <= self.ledger.balance
        if starts:
            self._charge(task["type"], price)
        outcome = "completed" if starts and not fails else "failed"
        self.store.decide(task["id"], "approved", outcome, self._task_seconds)
        return starts

    def _price(self, what: str, reply: _lexi.Reply) -> int:
        """Tell what a message costs; a stream is paid for by the tools that it takes."""
        if what == "chat":
            return self._prices.chat
        return self._prices.stream + self._prices.tool_step * len(reply.tools)

    def _charge(self, what: str, amount: int, key: str | None = None) -> None:
        """Take the price of something, or refuse it with 402."""
        self.ledger.charge(what, amount, key)
        self.store.save_balance(self.ledger.balance)

    def _past(self, conversation_id: str | None) -> Row:
        """Give the conversation that a message continues, or the likeness of one that it begins."""
        return self.store.conversation(conversation_id) or {"id": None, "context": {}, "memory": {}}

    def _answer(self, question: Question, past: Row) -> _lexi.Answer:
        context = past["context"] | question.context
        message, lists = question.message[:READ_LENGTH], self.store.lists()
        campaigns, price = self.store.campaigns(), self._prices.search
        ask = _lexi.Ask(message, context, past["memory"], lists, campaigns, price)
        return _lexi.answer(ask, allow_tools=question.allow_tools)

    def _carry_out(self, question: Question, answer: _lexi.Answer, past: Row, user_id: str) -> Turn:
        """Keep the message, and do or propose what the answer wants done."""
        conversation_id = self._keep(question, answer.reply, past, user_id)
        if answer.revision:
            self.store.revise(past["memory"]["campaign_start"], answer.revision)
        task_id = self._act(answer.action) if answer.action else None
        proposed = {answer.action.type: task_id} if answer.action else {}
        self.store.remember(conversation_id, past["memory"] | answer.memory | proposed)
        return Turn(conversation_id, answer.reply, task_id)

    def _recite(self, question: Question, past: Row, user_id: str) -> Turn:
        """Give the next answer of the script, which changes nothing in the CRM."""
        answer = self._script.answers.pop(0)
        return Turn(self._keep(question, answer.reply, past, user_id), answer.reply, answer.task_id)

    def _keep(self, question: Question, reply: _lexi.Reply, past: Row, user_id: str) -> str:
        """Keep the message and what the tools gave, and give the conversation's id."""
        conversation_id: str = past["id"] or self._open(question, user_id)
        self.store.add_message(conversation_id, "user", question.message)
        for step in reply.tools:
            output = {"summary": step.summary}
            self.store.add_message(conversation_id, "tool", "", tool_name=step.tool, tool_output=output)
        return conversation_id

    def _open(self, question: Question, user_id: str) -> str:
        context = {name: value for name, value in question.context.items() if name in KEPT_CONTEXT}
        return self.store.add_conversation(user_id, question.message[:TITLE_LENGTH], context)

    def _act(self, action: _lexi.Action) -> str | None:
        """Do something at once, or propose it and give the task's id."""
        if not action.at_once:
            return self.store.add_task(action.type, action.description, action.metadata)
        self.store.add_found(action.metadata)
        return None
