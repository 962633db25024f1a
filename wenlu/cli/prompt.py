"""wenlu prompt: prompts shown as a model reads them, compared, searched for, and sent elsewhere."""

import importlib

from wenlu.base.errors import UserError, did_you_mean

COMMANDS = {
    "render": "a prompt as the model reads it, for some examples: text and ids",
    "compare": "prompts on the same examples: accuracies, and verdicts beside the first",
    "optimize": "a search for a better prompt, with a verdict on examples that it never saw",
    "diff": "in what two prompts differ",
    "export": "a prompt as a plain request that any client can send",
}

HELP = f"""Prompts shown, compared, searched for, sent elsewhere. A prompt is a TOML file, or what a search found.

usage: wenlu prompt COMMAND ...        (wenlu prompt COMMAND --help: its settings and an example)

{chr(10).join(f"  {name:<10}{what}" for name, what in COMMANDS.items())}

example: wenlu prompt compare runs/chat plain.toml careful.toml --examples reviews.jsonl --gold answer
         wenlu prompt optimize runs/chat plain.toml --examples reviews.jsonl --gold answer --minutes 10 --out work
"""


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        raise UserError(f"no command 'prompt {name}'.{did_you_mean(name, COMMANDS)} See wenlu prompt --help")
    return importlib.import_module(f"wenlu.cli.prompting.{name}").main(rest) or 0
