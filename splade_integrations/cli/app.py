"""The command's frame: which subcommands there are, and what becomes of their errors.

Knows no model. A subcommand raises; here it becomes one line and an exit code.
"""

import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from splade_integrations import __version__
from splade_integrations.cli import encode, evaluate, explain, index, info, search
from splade_integrations.cli.terminal import InterruptedRun, complain

__all__ = ["app", "run"]

app = typer.Typer(
    name="splade",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: splade info MODEL, then splade encode texts.jsonl -m MODEL -o vectors.parquet",
)
for module in (info, encode, index, search, explain, evaluate):
    app.command()(getattr(module, module.__name__.rpartition(".")[2]))


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
    """SPLADE sparse embeddings: encode texts, index and search them in Milvus, see why they match, measure how well.

    MODEL is always a folder, or the name of a model on the Hugging Face hub.
    """


def run(arguments: Sequence[str]) -> int:
    """Run the command.

    Args:
        arguments: Without the program's name.
    Returns:
        The exit code: 0; 1 for a fault of ours; 2 for bad input or a place that cannot be written; 130 for Ctrl-C.
    """
    arguments = list(arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]  # anywhere, not only before the command
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    _quieten()
    try:
        code = int(app(arguments, standalone_mode=False, prog_name="splade") or 0)
        if code == 130:  # what typer makes of a Ctrl-C that no command has caught
            complain("interrupted; nothing was written.")
        return code
    except InterruptedRun as err:
        complain(str(err))
        return 130
    except BrokenPipeError:  # whoever read our output, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at exit
        return 141
    except (KeyboardInterrupt, typer.Abort):
        complain("interrupted; nothing was written.")
        return 130
    except Exception as err:  # the frame of a command: everything ends here
        if debug:
            raise
        return _report(err)


def _report(err: Exception) -> int:
    usage = getattr(err, "format_message", None)  # click's own: a wrong option, a missing argument
    if usage is not None:
        complain(f"{usage()} Try: splade --help.")
        return int(getattr(err, "exit_code", 2))
    if isinstance(err, OSError) and err.strerror:
        place = f"{err.filename}: " if err.filename else ""
        complain(f"{place}{err.strerror}.")
        return 2
    # What bad input raises; anything else is a fault of ours.
    milvus = type(err).__module__.startswith("pymilvus")
    if milvus or isinstance(err, ValueError | TypeError | OSError | ImportError):
        complain(("Milvus: " if milvus else "") + " ".join(str(getattr(err, "message", "") or err).split()))
        return 2
    complain(f"{type(err).__name__}: {err}. This is a fault of splade's; run again with --debug and report it.")
    return 1


def _quieten() -> None:
    """Libraries speak through our one line: Milvus's log the traceback of each error before they raise it."""
    logging.getLogger("milvus_lite").setLevel(logging.CRITICAL)
    for name in ("pymilvus.decorators", "pymilvus"):
        logging.getLogger(name).addFilter(lambda record: record.levelno > logging.ERROR)
    logging.getLogger("bm25s").addFilter(lambda record: record.levelno >= logging.WARNING)  # it tells of each step
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)
    if not sys.stderr.isatty():
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
