"""`python -m eqxcnn`, and the exit codes of all commands."""

import errno
import io
import logging
import runpy
import sys
import warnings
from pathlib import Path

import pytest

import eqxcnn
from eqxcnn import evaluate, train
from eqxcnn.__main__ import COMMANDS
from eqxcnn.cli import run_command
from eqxcnn.errors import InputError, nearest
from eqxcnn.zoo import __main__ as zoo


def run(monkeypatch, *arguments):
    """Runs `python -m eqxcnn` in this process; returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["eqxcnn", *arguments])
    monkeypatch.delitem(sys.modules, "eqxcnn.__main__")  # runpy warns otherwise
    try:
        runpy.run_module("eqxcnn", run_name="__main__")
    except SystemExit as exit_:
        return exit_.code
    return 0


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_commands_are_listed(monkeypatch, capsys, arguments):
    assert run(monkeypatch, *arguments) == 0
    heading, blank, *lines = capsys.readouterr().out.splitlines()
    assert (heading, blank) == ("Commands (add --help for their settings):", "")
    assert [line.split()[2] for line in lines] == [f"eqxcnn.{name}" for name in COMMANDS]
    assert lines[0] == (
        "  python -m eqxcnn.train     Trains a model from a recipe, from flags, or from both; resumes interrupted runs."
    )
    assert max(map(len, lines)) <= 120


def test_every_command_is_in_the_list():
    package = Path(eqxcnn.__file__).parent
    runnable = {
        path.relative_to(package).as_posix().removesuffix(".py").removesuffix("/__main__")
        for path in package.rglob("*.py")
        if "run_command(main)" in path.read_text(encoding="utf-8") and path.name != "cli.py"
    }
    assert runnable - {"__main__"} == set(COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train", "--model", "lenet"],
            "error: `python -m eqxcnn` only lists the commands: use `python -m eqxcnn.train`\n",
        ),
        (["trian"], "error: there is no command `trian`; did you mean `train`?\n"),
    ],
)
def test_other_arguments_are_refused_in_one_sentence(monkeypatch, capsys, arguments, message):
    assert run(monkeypatch, *arguments) == 1
    assert capsys.readouterr() == ("", message)


REDUCE = "reduce the batch size, the image size or the model"


class XlaRuntimeError(RuntimeError):
    """An exception class with the name of JAX's device errors."""


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("`k` (=0) must be at least 1"), 1, "error: `k` (=0) must be at least 1\n"),
        (KeyboardInterrupt(), 130, "interrupted before there was anything to save\n"),
        (OSError(errno.ENOSPC, "No space left on device", "a.log"), 1, "error: the disk is full while writing a.log\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "error: the disk is full\n"),
        (OSError(errno.EDQUOT, "Quota exceeded", "a.log"), 1, "error: the disk is full while writing a.log\n"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), 1, "error: `a` cannot be used: Permission denied\n"),
        (OSError(errno.ENAMETOOLONG, "Too long", "a"), 1, "error: `a` cannot be used: Too long\n"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "a"), 1, "error: `a` cannot be used: Is a directory\n"),
        (NotADirectoryError(errno.ENOTDIR, "Not one", "a"), 1, "error: `a` cannot be used: Not one\n"),
        (OSError(errno.ELOOP, "Many links", "a\x1b\n"), 1, "error: `a\\x1b\\n` cannot be used: Many links\n"),
        (OSError(errno.EROFS, "Read-only", b"a"), 1, "error: `b'a'` cannot be used: Read-only\n"),
        (MemoryError(), 1, f"error: there is not enough memory (the system refused to allocate more): {REDUCE}\n"),
        (
            MemoryError("Unable to allocate 9 GiB"),
            1,
            f"error: there is not enough memory (Unable to allocate 9 GiB): {REDUCE}\n",
        ),
        (
            XlaRuntimeError("RESOURCE_EXHAUSTED: Out of memory.\nmore"),
            1,
            f"error: there is not enough memory (RESOURCE_EXHAUSTED: Out of memory.): {REDUCE}\n",
        ),
    ],
)
def test_exit_codes(monkeypatch, capsys, error, code, message):
    def fail(arguments):
        assert arguments == ["--flag"]
        raise error

    monkeypatch.setattr(sys, "argv", ["command", "--flag"])
    with pytest.raises(SystemExit) as exit_:
        run_command(fail)
    assert exit_.value.code == code
    assert capsys.readouterr() == ("", message)


def test_a_closed_output_ends_the_command_quietly(monkeypatch):
    def fail(_):
        raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with pytest.raises(SystemExit) as exit_:
        run_command(fail)
    assert exit_.value.code == 141
    assert sys.stderr.closed


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EACCES, "Permission denied"),  # It names no file.
        FileNotFoundError(errno.ENOENT, "No such file", "a"),
        ValueError("a bug"),
        RecursionError("maximum recursion depth exceeded"),
        XlaRuntimeError("INTERNAL: a bug"),
    ],
)
def test_other_errors_keep_their_traceback(error):
    def fail(_):
        raise error

    with pytest.raises(type(error)) as caught:
        run_command(fail)
    assert caught.value is error


def test_a_full_disk_behind_the_output_is_noticed(monkeypatch, capsys):
    class Full(io.StringIO):
        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(SystemExit) as exit_:
        run_command(lambda _: print("results"))
    assert exit_.value.code == 1
    assert capsys.readouterr().err == "error: the disk is full\n"


def test_names_that_the_terminal_cannot_show_are_escaped(monkeypatch):
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", output)
    run_command(lambda _: print("K\u00e4fer \udcff"))
    assert output.buffer.getvalue() == b"K\\xe4fer \\udcff\n"


def test_warnings_of_pillow_are_not_shown():
    with warnings.catch_warnings(record=True) as shown:
        run_command(lambda _: warnings.warn_explicit("Corrupt EXIF data", UserWarning, "x.py", 1, "PIL.Image"))
        warnings.warn_explicit("not of Pillow", UserWarning, "x.py", 1, "other")
    assert [str(warning.message) for warning in shown] == ["not of Pillow"]


def test_pillow_does_not_log_what_an_error_says(monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("PIL"), "level", logging.NOTSET)
    run_command(lambda _: logging.getLogger("PIL.TiffImagePlugin").error("More samples per pixel"))
    assert caplog.records == []


def test_unknown_names_get_the_nearest_or_the_first_known_ones():
    assert nearest("lenett", ["mlp", "lenet"]) == "did you mean `lenet`?"
    assert nearest("abcd", ["abce", "abcf", "xyz"]) in (
        "did you mean `abcf` or `abce`?",
        "did you mean `abce` or `abcf`?",
    )
    assert nearest("zzz", ["b", "a"]) == "known: `a`, `b`."
    names = [f"{number:02}" for number in range(21)]
    assert nearest("zzz", names) == f"known: {', '.join(f'`{name}`' for name in names[:20])}, ..."


@pytest.mark.parametrize("command", [evaluate.main, zoo.main, train.main])
def test_flags_that_are_refused_are_printed_without_control_characters(monkeypatch, capsys, command):
    monkeypatch.setattr(sys, "argv", ["command", "--\x1b[31mred", "\u202e\udcff\r", "--data", "digits\x07"])
    with pytest.raises(SystemExit) as exit_:
        run_command(command)
    assert exit_.value.code == 2
    shown = capsys.readouterr().err
    assert [sign for sign in shown if not sign.isprintable() and sign != "\n"] == []
    assert "\\u202e\\udcff\\r" in shown
