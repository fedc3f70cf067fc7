"""The rules of the house, and a reader of source that tells who breaks them. It parses; it never imports what it reads.

Imports go one way: words <- judgement <- doors <- steps <- run <- command. In the rooms of judgement a module that is
not listed here is pure: whoever adds a door writes it down.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

WORDS, JUDGEMENT, DOORS, STEPS, RUN, COMMAND = range(6)
FLOOR_NAMES = ("words", "judgement", "doors", "steps", "run", "command")

FLOORS: Mapping[str, int] = {
    "pipeline.errors": WORDS,
    "pipeline.records": WORDS,
    "pipeline.manifest": JUDGEMENT,
    "pipeline.gateway": JUDGEMENT,
    "pipeline.gateway.client": DOORS,
    "pipeline.gateway.fetch": DOORS,
    "pipeline.gateway.dialing": DOORS,
    "pipeline.gateway.guard": DOORS,
    "pipeline.gateway.imagelook": DOORS,
    "pipeline.gateway.partfile": DOORS,
    "pipeline.ledger": JUDGEMENT,
    "pipeline.ledger.audit": DOORS,
    "pipeline.ledger.book": DOORS,
    "pipeline.ledger.database": DOORS,
    "pipeline.ledger.journal": DOORS,
    "pipeline.ledger.migrations": DOORS,
    "pipeline.ledger.moving": DOORS,
    "pipeline.ledger.postgres": DOORS,
    "pipeline.ledger.rebuild": DOORS,
    "pipeline.ledger.server": DOORS,
    "pipeline.ledger.spool": DOORS,
    "pipeline.ledger.store": DOORS,
    "pipeline.ledger.writer": DOORS,
    "pipeline.report": DOORS,
    "pipeline.apikey": DOORS,
    "pipeline.config": DOORS,
    "pipeline.configfile": DOORS,
    "pipeline.settings": DOORS,
    "pipeline.plan": STEPS,
    "pipeline.steps": STEPS,
    "pipeline.steps.breaker": JUDGEMENT,
    "pipeline.steps.generation": JUDGEMENT,
    "pipeline.steps.haltrule": JUDGEMENT,
    "pipeline.steps.patientplan": JUDGEMENT,
    "pipeline.steps.pollplan": JUDGEMENT,
    "pipeline.run": RUN,
    "pipeline.callbackdesk": RUN,
    "pipeline.cluster": RUN,
    "pipeline.derivation": RUN,
    "pipeline.embedded": RUN,
    "pipeline.ending": RUN,
    "pipeline.listing": RUN,
    "pipeline.motioncatalogue": RUN,
    "pipeline.hosting": RUN,
    "pipeline.landing": RUN,
    "pipeline.objectlook": RUN,
    "pipeline.objectstore": RUN,
    "pipeline.outlook": RUN,
    "pipeline.preflight": RUN,
    "pipeline.reporting": RUN,
    "pipeline.runlog": RUN,
    "pipeline.savedplan": RUN,
    "pipeline.session": RUN,
    "pipeline.streams": RUN,
    "pipeline.wireimages": RUN,
    "pipeline.workspace": RUN,
    "pipeline.api": COMMAND,
    "pipeline.cli": COMMAND,
    "pipeline.verbs": COMMAND,
    "pipeline.viewer": COMMAND,
    "pipeline.__main__": COMMAND,
    "pipeline": COMMAND,
}
"""Longest prefix decides; `pipeline` itself is the entry for notebooks. What is not listed is judgement."""

READERS = {
    "pipeline.manifest.read",
    "pipeline.manifest.files",
    "pipeline.manifest.images",
    "pipeline.manifest.schema",
    "pipeline.gateway.motions",
}
"""Judgement that reads the files it judges: a manifest, its pictures, the catalogue; or prints, as the schema does."""

SANDBOX_STARTERS = ("pipeline.embedded", "pipeline.cli", "pipeline.verbs")
"""Who may start the sandbox: a run that rehearses, and the command."""

SANDBOX = "pipeline.sandbox"

_WORLDLY = """
asyncio aiohttp aiolimiter concurrent fcntl filelock glob http io logging multiprocessing os procrastinate psycopg queue
random requests secrets select shutil signal socket sqlite3 ssl subprocess sys tempfile threading time tqdm
urllib.request warnings"""
_IO_CALLS = """
open read_text read_bytes write_text write_bytes exists is_file is_dir stat iterdir mkdir unlink touch rglob resolve cwd
home print input"""

WORLDLY = frozenset(_WORLDLY.split())
"""Libraries of I/O, waiting, randomness and logging: nothing pure imports them."""

IO_CALLS = frozenset(_IO_CALLS.split())
CLOCKS = frozenset({"time", "random", "secrets"})
CLOCK_CALLS = frozenset({"now", "utcnow", "today", "uuid1", "uuid4"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """What one module imports, lazily or not, and the names it calls."""

    name: str
    imports: frozenset[str]
    calls: frozenset[str]


def broken_rules(root: Path) -> list[str]:
    """Every rule that the package `pipeline` below `root` breaks, one sentence each, sorted."""
    modules = {module.name: module for module in _modules(root)}
    found = [sentence for module in modules.values() for sentence in _judged(module)]
    return sorted(found + list(_cycles(modules)))


def _judged(module: Module) -> Iterator[str]:
    if _inside(module.name, SANDBOX):
        yield from (f"{module.name} imports {name}: the sandbox stands alone" for name in _strangers(module))
        return
    yield from _wrong_ways(module)
    if _is_pure(module.name):
        yield from (f"{module.name} imports {name}: it is pure" for name in sorted(_reached(module, WORLDLY)))
        yield from (f"{module.name} calls {name}(): it is pure" for name in sorted(module.calls & IO_CALLS))
    if _floor(module.name) < RUN:
        yield from (f"{module.name} imports {name}: only run knows it" for name in sorted(_reached(module, CLOCKS)))
        yield from (f"{module.name} calls {name}(): only run knows it" for name in sorted(module.calls & CLOCK_CALLS))


def _strangers(module: Module) -> list[str]:
    return sorted(name for name in module.imports if _inside(name, "pipeline") and not _inside(name, SANDBOX))


def _wrong_ways(module: Module) -> Iterator[str]:
    for name in sorted(name for name in module.imports if _inside(name, "pipeline")):
        if _inside(name, SANDBOX):
            if not any(_inside(module.name, starter) for starter in SANDBOX_STARTERS):
                yield f"{module.name} imports {name}: only a run that rehearses and the command know the sandbox"
        elif not _may_import(module.name, name):
            here, there = FLOOR_NAMES[_floor(module.name)], FLOOR_NAMES[_floor(name)]
            yield f"{module.name} ({here}) imports {name} ({there}): imports go the other way"


def _may_import(importer: str, imported: str) -> bool:
    here, there = _floor(importer), _floor(imported)
    if here == there:
        return here in (WORDS, JUDGEMENT, RUN, COMMAND) or _room(importer) == _room(imported)
    return here > there


def _floor(module: str) -> int:
    """The floor of the longest listed name; whatever stands beside the rooms without being listed is judgement."""
    while module not in FLOORS:
        parent = module.rpartition(".")[0]
        if parent in ("", "pipeline"):
            return JUDGEMENT
        module = parent
    return FLOORS[module]


def _room(module: str) -> str:
    """A room is a package of `pipeline`; the modules that make the configuration are one room."""
    name = module.split(".")[1] if "." in module else module
    return "config" if name in ("apikey", "config", "configfile", "settings") else name


def _is_pure(module: str) -> bool:
    return _floor(module) <= JUDGEMENT and module not in READERS


def _reached(module: Module, libraries: frozenset[str]) -> set[str]:
    return {library for library in libraries for name in module.imports if _inside(name, library)}


def _inside(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def _cycles(modules: Mapping[str, Module]) -> Iterator[str]:
    """One sentence for each group of modules that import each other in a ring."""
    graph = {name: sorted(module.imports & modules.keys() - {name}) for name, module in modules.items()}
    reach = {name: _reachable(graph, name) for name in graph}
    rings = {tuple(sorted({name} | {other for other in reach[name] if name in reach[other]})) for name in graph}
    yield from (f"{', '.join(ring)}: import each other in a ring" for ring in rings if len(ring) > 1)


def _reachable(graph: Mapping[str, list[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(graph[name])
    return seen


def _modules(root: Path) -> Iterator[Module]:
    files = sorted((root / "pipeline").rglob("*.py"))
    names = {_module_name(root, file) for file in files}
    for file in files:
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"), filename=str(file))))
        name = _module_name(root, file)
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        imports = frozenset(imported for node in nodes for imported in _imported(node, package, names))
        calls = frozenset(called for node in nodes if isinstance(node, ast.Call) for called in _called(node.func))
        yield Module(name=name, imports=imports, calls=calls)


def _module_name(root: Path, file: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(node: ast.AST, package: str, names: set[str]) -> Iterator[str]:
    """What a node imports; `from x import y` is y when that is a module; importing by a function counts as well."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        parts = package.split(".")
        base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
        source = ".".join(part for part in (base, node.module) if part)
        for alias in node.names:
            full = f"{source}.{alias.name}"
            yield full if full in names or source in ("urllib", "concurrent") else source
    elif isinstance(node, ast.Call) and set(_called(node.func)) & {"import_module", "__import__"}:
        yield from (arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and isinstance(arg.value, str))


def _called(func: ast.expr) -> Iterator[str]:
    if isinstance(func, ast.Name):
        yield func.id
    elif isinstance(func, ast.Attribute):
        yield func.attr
