"""The `wenlu` command: a table of commands, each imported only when it is called."""

import errno
import importlib
import os
import sys

import wenlu
from wenlu.base.errors import UserError, did_you_mean
from wenlu.cli.flags import INTERRUPTED

COMMANDS = {
    "prepare": "text files → a folder of token ids, with its tokenizer",
    "train": "a model from text, from prepared data or from a recipe; resumes exactly",
    "finetune": "a trained model tuned on examples: chat, pairs, classify, tag or span",
    "sweep": "the best of several settings, in a given time",
    "eval": "how well a model predicts texts and solves tasks, each figure with an interval",
    "generate": "text that continues a prompt",
    "predict": "labels, tags and answers for new texts, by a tuned model",
    "prompt": "prompts shown, compared and searched for, each verdict with an interval",
    "chat": "a conversation with a model in the terminal",
    "export": "a model as one GGUF file, for llama.cpp and what is built on it",
    "info": "what is in a run, a data folder or a tokenizer",
    "plan": "what a recipe takes on GPUs, on paper: parameters, memory, days",
    "demo": "all of it in about three minutes, on a text that every Python carries",
}

HELP = f"""wenlu 文炉 {wenlu.__version__}: a language model's whole life, from raw text to text that it writes.

usage: wenlu COMMAND ...        (wenlu COMMAND --help: its settings and an example)

{chr(10).join(f"  {name:<10}{what}" for name, what in COMMANDS.items())}

example: wenlu train book.txt --out runs/book --steps 500
         wenlu generate runs/book --prompt "It was"
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 0, 2 for a mistake that the user can mend, 130 when interrupted."""
    if not (sys.stdout.encoding or "utf-8").lower().startswith("utf"):
        sys.stdout.reconfigure(errors="backslashreplace")  # 文 becomes \u6587 there, which JSON reads as 文
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"wenlu: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("wenlu: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _leave_stdout()
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        where = error.filename or "the results"
        print(f"wenlu: cannot write {where}: the disk is full; free some space, or write elsewhere", file=sys.stderr)
        _leave_stdout()
        return 2


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"wenlu {wenlu.__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        raise UserError(f"no command {name!r}.{did_you_mean(name, COMMANDS)} See wenlu --help")
    return importlib.import_module(f"wenlu.cli.{name}").main(rest) or 0


def _leave_stdout() -> None:
    """What is still to be written there goes nowhere, lest Python complain of it once more as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
