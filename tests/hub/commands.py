"""Runs commands of the package in one process, because each process takes seconds to start.

Each line of standard input is a JSON list of the command's module, its arguments, and environment variables to set. The
answer is one line, a JSON list of the exit code, standard output and standard error.
"""

import contextlib
import importlib
import io
import json
import os
import sys
import traceback

from eqxcnn import hub_connection
from eqxcnn.cli import run_command


def run(module, arguments, environment):
    os.environ.update(environment)
    output, errors, sys.argv = io.StringIO(), io.StringIO(), [module, *arguments]
    code = 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            run_command(importlib.import_module(module).main)
        except SystemExit as exit_:
            code = exit_.code
        except Exception:  # A bug; the command line would print the traceback too.
            code = 1
            traceback.print_exc()
    return code, output.getvalue(), errors.getvalue()


if __name__ == "__main__":
    hub_connection._TIMEOUT_SECONDS = 60.0  # The machine may be busy.
    for line in sys.stdin:
        print(json.dumps(run(*json.loads(line))), file=sys.__stdout__, flush=True)
