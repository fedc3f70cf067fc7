"""`init` and `completion`: what the user needs once, before the first run. Overwrites nothing and buys nothing."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from pathlib import Path

from pipeline.cli.arguments import print_notice
from pipeline.cli.commands import init_from_pictures
from pipeline.cli.fish import fish_script
from pipeline.config.loader import packaged
from pipeline.errors import UsageError

STARTER = Path(__file__).resolve().parents[1] / "starter"
SAMPLES = ("shots.csv", "sweep.yaml", "live-shots.csv")
CONFIGS = ("default.yaml", "live.yaml", "manifest.schema.json")
"""default.yaml is taken by every command without --config; the schema lets editors complete and check manifests."""

FILE_WORDS = ("MANIFEST", "FILE", "PLAN", "CSV", "PICKS")
FOLDER_WORDS = ("DIR",)
"""What a flag or an argument is called in the usage where it names a file or a folder."""


def init(args: argparse.Namespace) -> int:
    """Puts sample manifests and the configurations into a folder; what is there already stays as it is."""
    folder: Path = args.folder
    if args.pictures is not None:
        return _from_pictures(args.pictures, folder)
    try:
        for target, content in _samples(folder):
            print_notice([f"{target}: {_put(target, content)}"])
    except OSError as error:
        raise UsageError(f"{error.filename or folder} can't be written ({error.strerror})") from None
    before = "" if folder.resolve() == Path.cwd() else f"cd {folder} && "
    print(f"{before}dop plan shots.csv   # what it would buy, and the price")
    print(f"{before}dop run shots.csv    # buys it from a gateway on this machine: real clips, no money")
    return 0


def _from_pictures(pictures: Path, folder: Path) -> int:
    """Puts a sheet of a folder of pictures into a folder; a sheet of that name stays as it is."""
    text, without_prompt = init_from_pictures.sheet_of(pictures, folder)
    target = folder / f"{pictures.resolve().name}.csv"
    try:
        print_notice([f"{target}: {_put(target, text.encode())}"])
    except OSError as error:
        raise UsageError(f"{error.filename or folder} can't be written ({error.strerror})") from None
    if without_prompt:
        print_notice([f"rows without a prompt: {without_prompt}; write it into the sheet"])
    outside = not pictures.resolve().is_relative_to(folder.resolve())
    allowed = f" --set images.allow={shlex.quote(str(pictures.resolve()))}" if outside else ""
    print(f"dop plan {target}{allowed}   # what it would buy, and the price")
    print(f"dop run {target}{allowed}    # buys it from a gateway on this machine: real clips, no money")
    return 0


def _samples(folder: Path) -> Iterator[tuple[Path, bytes]]:
    yield from ((folder / name, (STARTER / name).read_bytes()) for name in SAMPLES)
    yield from ((folder / "configs" / name, packaged(name).read_bytes()) for name in CONFIGS)


def _put(target: Path, content: bytes) -> str:
    """Writes a new file; one that exists is not opened at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with target.open("xb") as file:
            file.write(content)
    except FileExistsError:
        return "already exists, skipped"
    return "written"


def completion(args: argparse.Namespace) -> int:
    """Prints a script that completes verbs, flags and file names in a shell."""
    parser: argparse.ArgumentParser = args.whole_parser()
    if args.shell == "fish":
        print(fish_script(parser, _value_kind))
        return 0
    import shtab

    for one in _parsers(parser):
        for action in one._actions:
            kind = _kind(action)
            if kind is not None:
                action.complete = kind  # type: ignore[attr-defined] # the attribute that shtab looks for
    print(shtab.complete(parser, shell=args.shell))
    return 0


def _value_kind(action: argparse.Action) -> str:
    if action.metavar in FILE_WORDS:
        return "file"
    return "folder" if action.metavar in FOLDER_WORDS else ""


def _kind(action: argparse.Action) -> object:
    import shtab

    return {"file": shtab.FILE, "folder": shtab.DIRECTORY}.get(_value_kind(action))


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from _parsers(sub)
