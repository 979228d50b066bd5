"""Turns the process that runs it into a server that ends with its parent.

Run by path with `python -I -S`, so it knows the standard library alone:
`launch.py PARENT SIGNAL USER FOLDER PROGRAM [ARGUMENT...]`. It becomes USER
("uid:gid", or "-" to stay who it is), asks the kernel for SIGNAL (a number)
when PARENT (a pid) ends, and becomes PROGRAM inside FOLDER. What stands in the
way is one line on standard error and exit code 126, as in a shell.

A launcher, and not a function between fork and exec, because the parent may
have threads, and because the kernel forgets the signal on a change of user.
"""

import ctypes
import os
import sys
from typing import Final

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
PR_SET_KEEPCAPS: Final = 8  # linux/prctl.h
PR_SET_SECUREBITS: Final = 28  # linux/prctl.h
PR_CAP_AMBIENT: Final = 47  # linux/prctl.h
PR_CAP_AMBIENT_RAISE: Final = 2  # linux/prctl.h
SECBIT_NO_SETUID_FIXUP: Final = 1 << 2  # linux/securebits.h
CAP_DAC_READ_SEARCH: Final = 2  # linux/capability.h
CAPABILITY_VERSION_3: Final = 0x20080522  # linux/capability.h
CANNOT_EXECUTE: Final = 126  # POSIX.1-2024, Shell Command Language, 2.8.2


class LaunchError(Exception):
    """The program cannot be started; the text is one sentence."""


def become(uid: int, gid: int) -> None:
    """Change to an ordinary user who may still enter and read any folder, if that may be kept.

    The checkout and its data may lie below a private folder of root, which is
    nobody's business to open up; so the one capability to look through folders
    survives as an ambient one, every other is given up (capabilities(7)). The
    secure bit lets access(2), by which PostgreSQL looks for its own programs,
    see that capability too.
    """
    system = ctypes.CDLL(None, use_errno=True)
    system.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    system.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    mask = 1 << CAP_DAC_READ_SEARCH
    kept = (ctypes.c_uint32 * 6)(mask, mask, mask)  # effective, permitted, inheritable; then their high halves
    if system.capset(header, kept) == 0:
        system.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_READ_SEARCH, 0, 0)
    elif system.capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise LaunchError("the servers would keep the power of root.")


def end_with(parent: int, signal: int) -> None:
    """Have the kernel send `signal` when the parent ends; raises LaunchError when it already has."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0)
    if os.getppid() != parent:
        raise LaunchError("the service ended while its stores were starting.")


def execute(folder: str, program: str, arguments: list[str]) -> None:
    """Become the program; returns never, raises LaunchError when the user may not reach it."""
    try:
        os.chdir(folder)
        os.execv(program, [program, *arguments])
    except PermissionError as error:
        raise LaunchError(
            f"user {os.getuid()}, who runs the servers in place of root, may not enter {error.filename or program};"
            " keep the checkout outside of private folders, allow the capability DAC_READ_SEARCH, or be an ordinary user."
        ) from error
    except OSError as error:
        raise LaunchError(f"cannot start {program}: {error.strerror}.") from error


def main(parent: str, signal: str, user: str, folder: str, program: str, *arguments: str) -> None:
    """Do what the module says, with the arguments of the command line."""
    try:
        if user != "-":
            uid, _, gid = user.partition(":")
            become(int(uid), int(gid))
        end_with(int(parent), int(signal))
        execute(folder, program, list(arguments))
    except (LaunchError, OSError) as error:
        sys.stderr.write(f"FATAL:  {error}\n")
        sys.exit(CANNOT_EXECUTE)


if __name__ == "__main__":
    main(*sys.argv[1:])
