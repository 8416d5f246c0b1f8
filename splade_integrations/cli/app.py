"""Registers the subcommands of `splade`, and turns their exceptions into messages and exit codes.

Each message is one line on stderr. A subcommand imports large packages (torch, Milvus, numpy) only when it runs. So
`--help`, `--version` and messages about wrong options appear at once.
"""

import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from splade_integrations import __version__
from splade_integrations.cli.add_sparse import add_sparse
from splade_integrations.cli.compact import compact
from splade_integrations.cli.copy import copy
from splade_integrations.cli.encode import encode
from splade_integrations.cli.evaluate import evaluate
from splade_integrations.cli.explain import explain
from splade_integrations.cli.index import index
from splade_integrations.cli.info import info
from splade_integrations.cli.interrupting import InterruptedRun, interruptible, was_interrupted, was_terminated
from splade_integrations.cli.options import with_groups
from splade_integrations.cli.search import search
from splade_integrations.cli.serve import serve
from splade_integrations.cli.terminal import complain

__all__ = ["app", "run"]


class PanelCommand(TyperCommand):
    """A command whose help has a section for each `rich_help_panel`, which is Typer's name for a group of options.

    Typer's own commands show such sections only if the library rich formats the help.
    """

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections Arguments and Options, then a section for each `rich_help_panel` of the options."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
            if record is not None:
                name, text = record
                unescaped = text.replace(r"\[", "[")  # Typer 0.15 escapes "[" for rich even in plain help
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or kind, []).append((name, unescaped))
        for name, records in sections.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)


app = typer.Typer(
    name="splade",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich would add frames and colours to the help, but show it 70 ms later
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog='Start with: splade index FOLDER -m MODEL, then splade search "QUESTION"',
)
for command in (info, encode, index, search, explain, evaluate, add_sparse, copy, compact, serve):
    app.command(cls=PanelCommand)(with_groups(command))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"splade-integrations {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Encode texts with SPLADE, index and search them in Milvus, explain matches and measure retrieval quality.

    MODEL can be a folder, or the name of a model on the Hugging Face hub. For encode, index, search and
    add-sparse, MODEL can also be the address of a server that was started with splade serve.
    """


def run(arguments: Sequence[str]) -> int:
    """Run the command.

    Args:
        arguments: The command line without the program's name.
    Returns:
        The exit code: 0 for success, 1 for a bug in this package, 2 for bad input or a file that cannot be written,
        130 for Ctrl-C, 141 if the program that reads the output (such as head) stops reading, and 143 for SIGTERM.
    """
    with interruptible():
        code = _run(arguments)
        return 143 if code == 130 and was_terminated() else code


def _run(arguments: Sequence[str]) -> int:
    debug = "--debug" in arguments
    # Typer would accept --debug only before the subcommand. So --debug is removed here, and may stand anywhere.
    arguments = [argument for argument in arguments if argument != "--debug"]
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    _silence_libraries()
    try:
        code = int(app(arguments, standalone_mode=False, prog_name="splade") or 0)
        if code == 130:  # typer's code for a Ctrl-C that no command has caught
            complain("interrupted.")
        return code
    except InterruptedRun as err:
        complain(str(err))
        return 130
    except BrokenPipeError:  # the program that reads our output (such as head) has stopped reading
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise, Python prints an error at exit
        return 141
    except BaseException as err:  # every error becomes a message
        if was_interrupted(err) or isinstance(err, typer.Abort):
            complain("interrupted.")
            return 130
        if debug or not isinstance(err, Exception):
            raise
        return _report(err)


def _report(err: Exception) -> int:
    usage = getattr(err, "format_message", None)  # only click's errors, such as a wrong option, have this method
    if usage is not None:
        complain(f"{usage()} Try: splade --help.")
        return int(getattr(err, "exit_code", 2))
    if isinstance(err, OSError) and err.strerror:
        place = f"{err.filename}: " if err.filename else ""
        complain(f"{place}{err.strerror}.")
        return 2
    if isinstance(err, ModuleNotFoundError) and (err.name or "").split(".")[0] == "rich":
        complain("the command needs rich. Install it with: pip install 'splade-integrations[cli]'.")
        return 2
    # The types of error that are listed below mean bad input. Any other error is a bug in this package.
    milvus = type(err).__module__.startswith("pymilvus")
    if milvus or isinstance(err, ValueError | TypeError | OSError | ImportError):
        complain(("Milvus: " if milvus else "") + " ".join(str(getattr(err, "message", "") or err).split()))
        return 2
    complain(f"{type(err).__name__}: {err}. This is a bug in splade. Run the command with --debug, and report the bug.")
    return 1


def _silence_libraries() -> None:
    """Keep libraries from logging errors that our messages report anyway. Milvus's libraries would log tracebacks."""
    logging.getLogger("milvus_lite").setLevel(logging.CRITICAL)
    for name in ("pymilvus.decorators", "pymilvus"):
        logging.getLogger(name).addFilter(lambda record: record.levelno > logging.ERROR)
    logging.getLogger("bm25s").addFilter(lambda record: record.levelno >= logging.WARNING)  # bm25s logs each step
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)
