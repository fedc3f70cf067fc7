"""The import rules, and a reader of source code that reports each break. It parses; it never imports what it reads.

Packages form layers: a module imports only from layers below its own, or from its own package. The sandbox imports no
other package, so that a misreading of the API cannot hide on both sides. Pure modules do no I/O and read no clock.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"record_class"}),
    frozenset({"errors", "records", "files"}),
    frozenset({"config"}),
    frozenset({"gateway", "ledger"}),
    frozenset({"manifest", "assets"}),
    frozenset({"reports"}),
    frozenset({"planning", "runner"}),
    frozenset({"cli"}),
    frozenset({"api"}),
    frozenset({"__init__", "__main__"}),
)
"""Lowest first. Each entry names packages or modules directly below `pipeline`."""

PURE = (
    "pipeline.errors",
    "pipeline.gateway",
    "pipeline.ledger.budget",
    "pipeline.ledger.states",
    "pipeline.ledger.text",
    "pipeline.ledger.transitions",
    "pipeline.manifest",
    "pipeline.runner.callback_poll_schedule",
    "pipeline.runner.circuit_breaker",
    "pipeline.runner.exit_code",
    "pipeline.runner.failure_limit",
    "pipeline.runner.generation_times",
    "pipeline.runner.poll_schedule",
    "pipeline.runner.refused_rows",
    "pipeline.runner.submit_decisions",
)
"""Packages and modules that do no I/O, apart from the modules of IMPURE."""

IMPURE = (
    "pipeline.gateway.client",
    "pipeline.gateway.connection_probe",
    "pipeline.gateway.download",
    "pipeline.gateway.motion_catalog",
    "pipeline.gateway.motions",
    "pipeline.gateway.network_errors",
    "pipeline.gateway.part_file",
    "pipeline.gateway.response_reader",
    "pipeline.gateway.ssrf_connector",
    "pipeline.gateway.tcp_keepalive",
    "pipeline.gateway.tls_sessions",
    "pipeline.manifest.image_refs",
    "pipeline.manifest.json_schema",
    "pipeline.manifest.loader",
    "pipeline.manifest.reader",
    "pipeline.manifest.picture_rows",
    "pipeline.manifest.row_sources",
    "pipeline.manifest.source_files",
    "pipeline.manifest.workbook",
)
"""Modules of pure packages that read files or talk to the network."""

CLOCK_READERS = (
    "pipeline.api",
    "pipeline.cli",
    "pipeline.runner",
    "pipeline.assets",
    "pipeline.reports",
    "pipeline.planning",
    "pipeline.ledger.identity",
    "pipeline.ledger.workspace",
)
"""Who may read the clock or draw randomness itself; every other module is handed both."""

SANDBOX_STARTERS = ("pipeline.runner.embedded_sandbox", "pipeline.cli")
"""Who may start the sandbox: a run against the embedded sandbox, and the command line."""

SANDBOX = "pipeline.sandbox"

_IO_LIBRARIES = """
asyncio aiohttp aiolimiter concurrent fcntl filelock glob http io logging multiprocessing os psycopg queue
random requests secrets select shutil signal socket sqlite3 ssl subprocess sys tempfile threading time tqdm
urllib.request warnings"""
_IO_CALLS = """
open read_text read_bytes write_text write_bytes exists is_file is_dir stat iterdir mkdir unlink touch rglob resolve cwd
home print input"""

IO_LIBRARIES = frozenset(_IO_LIBRARIES.split())
"""Libraries of I/O, waiting, randomness and logging: no pure module imports them."""

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
        yield from (f"{module.name} imports {name}: the sandbox imports no other package" for name in _foreign(module))
        return
    yield from _wrong_layers(module)
    if _is_pure(module.name):
        yield from (f"{module.name} imports {name}: it is pure" for name in sorted(_reached(module, IO_LIBRARIES)))
        yield from (f"{module.name} calls {name}(): it is pure" for name in sorted(module.calls & IO_CALLS))
    if not any(_inside(module.name, reader) for reader in CLOCK_READERS):
        yield from (f"{module.name} imports {name}: it is handed a clock" for name in sorted(_reached(module, CLOCKS)))
        yield from (
            f"{module.name} calls {name}(): it is handed a clock" for name in sorted(module.calls & CLOCK_CALLS)
        )


def _foreign(module: Module) -> list[str]:
    return sorted(name for name in module.imports if _inside(name, "pipeline") and not _inside(name, SANDBOX))


def _wrong_layers(module: Module) -> Iterator[str]:
    for name in sorted(name for name in module.imports if _inside(name, "pipeline")):
        if _inside(name, SANDBOX):
            if not any(_inside(module.name, starter) for starter in SANDBOX_STARTERS):
                yield f"{module.name} imports {name}: only the embedded sandbox and the command line may"
        elif not _may_import(module.name, name):
            yield f"{module.name} imports {name}: that layer is not below its own"


def _may_import(importer: str, imported: str) -> bool:
    here, there = _package(importer), _package(imported)
    return here == there or _layer(here) > _layer(there)


def _layer(package: str) -> int:
    """The index of the package's layer; a package that LAYERS does not name is above all."""
    return next((index for index, packages in enumerate(LAYERS) if package in packages), len(LAYERS))


def _package(module: str) -> str:
    """The name directly below `pipeline`; `pipeline` itself is its `__init__`."""
    return module.split(".")[1] if "." in module else "__init__"


def _is_pure(module: str) -> bool:
    return any(_inside(module, name) for name in PURE) and module not in IMPURE


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
