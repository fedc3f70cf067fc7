"""`key trust` and `key set`: where the gateway's key may go, and storing it. Sends nothing, and never shows the key."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from pathlib import Path

from pipeline.cli.arguments import has_terminal, print_notice, settings_of
from pipeline.config.api_key import checked_key, store_key
from pipeline.config.key_origins import KeyOrigins, origin, state_folder
from pipeline.errors import UsageError
from pipeline.gateway.kinds import kind_of


def trust(args: argparse.Namespace) -> int:
    """Remember an origin that the key may go to."""
    target, credential = origin(args.origin), kind_of(settings_of(args)).credential
    KeyOrigins(state_folder(os.environ, Path.home())).trust(f"{credential.prefix}{target}")
    print_notice([f"the key may go to {target}"])
    return 0


def store(args: argparse.Namespace) -> int:
    """Take the key from the keyboard without showing it, or from stdin, and store it for this user alone."""
    if has_terminal():
        text = getpass.getpass("key (it is not shown): ")
    else:
        text = sys.stdin.readline() if sys.stdin is not None else ""
    if not text.strip():
        raise UsageError("no key was given; nothing was stored")
    credential = kind_of(settings_of(args)).credential
    path = store_key(checked_key(text.strip("\r\n"), "key set"), Path.home(), credential)
    print_notice([f"{path}: the key is stored, readable for you alone"])
    return 0
