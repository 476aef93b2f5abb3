"""A conversation as people see it: a prompt, answers that stream in, and orders such as /reset."""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass, field

import grpc
import typer
from rich.console import Console
from rich.text import Text

from services.cli import mesh_access
from services.cli.chat import answering
from services.cli.chat.answering import Answer
from services.cli.chat.conversation import Conversation, Order, Question, Unknown, Verb, understand
from tokenmesh.mesh.v1 import generation_pb2

EXIT_INTERRUPTED = 130
PROMPT = "› "
HELP = """\
/system TEXT   what the model is told beforehand; without TEXT, nothing
/reset         forget the conversation
/help          this
/exit          leave; so does Ctrl-D
Ctrl-C stops an answer. To begin a question with a slash, type two."""

# A model's output must not steer the terminal: all control characters but tab and line feed go.
_CONTROL = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - {ord("\t"), ord("\n")})


@dataclass
class Talk:
    """A conversation with one model over one channel."""

    channel: grpc.Channel
    model: str
    conversation: Conversation
    sampling: generation_pb2.SamplingParameters
    quiet: bool = False
    _notes: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))

    def once(self, question: str) -> None:
        """Prints the answer to one question. A call that fails is raised: grpc.RpcError."""
        if not question.strip():
            mesh_access.fail("the question is empty", exit_code=2)
        self.conversation.ask(question.strip())
        try:
            self._answer()
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_INTERRUPTED) from None

    def interactively(self) -> None:
        """Reads lines from the terminal and answers them, until the user leaves."""
        # Takes a tenth of a second to load, and a pipe needs none of it.
        from prompt_toolkit import PromptSession

        # Whoever started this may have had SIGINT ignored, as scripts do for what they start in the
        # background; here it stops an answer.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        lines: PromptSession[str] = PromptSession()
        self._note(f"{self.model}. /help tells what can be typed; Ctrl-D leaves.")
        while True:
            try:
                match understand(lines.prompt(PROMPT)):
                    case Question(text):
                        self._turn(text)
                    case Order(Verb.EXIT):
                        return
                    case Order(verb, argument):
                        self._obey(verb, argument)
                    case Unknown(word):
                        self._note(f"{word} is no order; /help lists them.")
                    case None:
                        pass
            except KeyboardInterrupt:
                # Ends what is typed or answered, never the conversation.
                continue
            except EOFError:
                return

    def _obey(self, verb: Verb, argument: str) -> None:
        if verb is Verb.HELP:
            self._note(HELP)
        elif verb is Verb.RESET:
            self.conversation.reset()
            self._note("The conversation is forgotten.")
        elif verb is Verb.SYSTEM:
            self.conversation.system = argument
            self._note("The model is told this from now on." if argument else "No system message.")

    def _turn(self, question: str) -> None:
        """One question and its answer. One that fails is told, and forgotten."""
        self.conversation.ask(question)
        try:
            self._answer()
        except KeyboardInterrupt:
            self._note("interrupted")
            if self.conversation.turns[-1].role == "user":
                self.conversation.take_back()
        except grpc.RpcError as error:
            self.conversation.take_back()
            self._note(mesh_access.describe(error, self.model), style="red")
        print()

    def _answer(self) -> None:
        """Prints an answer as it comes, and keeps it. An interrupt keeps what came before it.

        Raises:
            KeyboardInterrupt: the user stopped it; the mesh no longer computes it.
            grpc.RpcError: the call failed.
        """
        answer = answering.ask(
            self.channel, self.model, self.conversation.messages(), self.sampling
        )
        try:
            for piece in answer:
                print(
                    piece.translate(_CONTROL) if sys.stdout.isatty() else piece, end="", flush=True
                )
        except KeyboardInterrupt:
            answer.interrupt()
            if answer.text:
                self.conversation.answer(answer.text)
            raise
        finally:
            print()
        self.conversation.answer(answer.text)
        self._tell_speed(answer)

    def _tell_speed(self, answer: Answer) -> None:
        facts = [f"{answer.completion_tokens} tokens"]
        if answer.tokens_per_s is not None:
            facts.append(f"{answer.tokens_per_s:.1f} tokens/s")
        if answer.first_token_s is not None:
            facts.append(f"first after {answer.first_token_s:.2f} s")
        if answer.cut_short:
            facts.append("cut short by the token limit")
        self._note(", ".join(facts))

    def _note(self, text: str, style: str = "dim") -> None:
        """Prints what is not an answer, to standard error."""
        if not self.quiet:
            self._notes.print(Text(text, style=style))
