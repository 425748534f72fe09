"""A key that only a passphrase opens: scrypt (RFC 7914) and Fernet of `cryptography`."""

import base64
import getpass
import hashlib
import json
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

from rfxray.command_line import require
from rfxray.errors import ConfigError, DataError

# 128 MB and half a second a guess: OWASP's cost for scrypt (Password Storage Cheat Sheet)
COST = {"n": 2**17, "r": 8, "p": 1}
SHORTEST = 12  # characters of a passphrase


def seal(content: bytes, passphrase: str) -> bytes:
    """Encrypts a key.

    Raises:
      ConfigError: If the passphrase is too short, or the extra `seal` is not installed.
    """
    if len(passphrase) < SHORTEST:
        raise ConfigError(
            f"the passphrase has {len(passphrase)} characters; give at least {SHORTEST}"
        )
    salt = secrets.token_bytes(16)
    sealed = {
        "sealed": "key of a reader study, scrypt and Fernet",
        "salt": salt.hex(),
        **COST,
        "content": _cipher(passphrase, salt, COST).encrypt(content).decode(),
    }
    return (json.dumps(sealed, indent=1) + "\n").encode()


def opened(path: Path, passphrase: Callable[[], str]) -> bytes:
    """The content of a key, sealed or not.

    Args:
      path: Path of the file.
      passphrase: Function that is called if the key is sealed.

    Raises:
      DataError: If the passphrase is wrong or the file was changed.
    """
    content = path.read_bytes()
    try:
        sealed = json.loads(content)
        if "sealed" not in sealed:
            return content
    except (ValueError, TypeError):
        return content  # the reader of keys says what is wrong
    try:
        cost = {name: int(sealed[name]) for name in COST}
        salt, token = bytes.fromhex(sealed["salt"]), str(sealed["content"]).encode()
        if cost != COST:  # a file must not ask for any amount of memory
            raise ValueError(f"its costs are {cost}")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is a damaged key ({error}); restore the file") from error
    cipher = _cipher(passphrase(), salt, cost)
    from cryptography.fernet import InvalidToken

    try:
        return cipher.decrypt(token)
    except InvalidToken:
        raise DataError(
            f"{path} does not open: the passphrase is wrong, or the file was changed"
        ) from None


def ask() -> str:
    """The passphrase, typed at a terminal or as the first line of the standard input."""
    if sys.stdin.isatty():
        return getpass.getpass("passphrase of the key: ")
    return sys.stdin.readline().rstrip("\n")


def ask_new() -> str:
    """A new passphrase, typed twice at a terminal.

    Raises:
      ConfigError: If the two differ.
    """
    first = ask()
    if sys.stdin.isatty() and getpass.getpass("the same again: ") != first:
        raise ConfigError("the two passphrases differ; run the command again")
    return first


def _cipher(passphrase: str, salt: bytes, cost: dict[str, int]):
    require("seal", "cryptography")
    from cryptography.fernet import Fernet

    secret = hashlib.scrypt(passphrase.encode(), salt=salt, dklen=32, maxmem=2**28, **cost)
    return Fernet(base64.urlsafe_b64encode(secret))
