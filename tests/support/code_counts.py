"""Counts of what makes code hard to read: names that name nothing, missing docstrings, long functions and files, repeated blocks."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from tests.support.paths import ROOT

MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 400
BLOCK_LINES = 8
"""Lines of code that are a repeated block when they occur twice; blank lines, comments and imports do not count."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PRONOUNS = _words(
    """
    both each either enough every his hers it its many mine neither others ours rest same several some that theirs them these they
    this those us we what which who whom whose you
    """
)
ADVERBS = _words(
    """
    again alone apart away behind beside beyond elsewhere far forth hence here how inside instead left_over leftover near once
    outside rather then there thus together twice when where why within yes
    """
)
PARTICIPLES = _words(
    """
    asked begun done drawn due found given gone held kept known left lost made meant met read said seen shown sold spoken standing
    stood taken told took wanted won written
    """
)
VERBS = _words(
    """
    asks begins closes comes ends finds gives goes holds keeps knows makes means opens pays reads says sells shows stands stays
    takes tells writes
    """
)
NOUNS_ENDING_IN_ED = frozenset({"breed", "embed", "feed", "need", "seed", "speed", "weed"})

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def is_vague(name: str) -> bool:
    """Whether a name is a pronoun, an adverb or a verb form alone, and so does not say what the value is.

    >>> [name for name in ("told", "_held", "matched", "speed", "matched_usage", "rows") if is_vague(name)]
    ['told', '_held', 'matched']
    """
    word = name.strip("_")
    if word in PRONOUNS or word in ADVERBS or word in PARTICIPLES or word in VERBS:
        return True
    return word.endswith("ed") and "_" not in word and len(word) > 4 and word not in NOUNS_ENDING_IN_ED


def local_names(function: Function) -> set[str]:
    """Parameters and local variables of one function, without those of functions inside it.

    >>> sorted(local_names(ast.parse("def f(a, *, b): c = [d for d in a]").body[0]))
    ['a', 'b', 'c', 'd']
    """
    arguments = function.args
    parameters = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    names = {parameter.arg for parameter in parameters if parameter} - {"self", "cls"}
    if isinstance(function, ast.Lambda):
        return names
    not_local: set[str] = set()
    for node in _own_nodes(function.body):
        if isinstance(node, ast.Global | ast.Nonlocal):
            not_local.update(node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names - not_local


def _own_nodes(nodes: list[ast.stmt]) -> Iterator[ast.AST]:
    waiting: list[ast.AST] = list(nodes)
    while waiting:
        node = waiting.pop()
        if not isinstance(node, Function | ast.ClassDef):
            yield node
            waiting.extend(ast.iter_child_nodes(node))


def modules(package: str) -> list[Path]:
    """The Python files of a package; migrations are history and stay as they are."""
    return [path for path in sorted((ROOT / package).rglob("*.py")) if "migrations" not in path.parts]


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def names(package: str) -> Iterator[tuple[str, str]]:
    """Every local variable and parameter of a package, with its function's place."""
    for path in modules(package):
        for node in ast.walk(_parsed(path)):
            if isinstance(node, Function):
                for name in sorted(local_names(node)):
                    yield _place(path, node.lineno), name


def vague_names(package: str) -> list[str]:
    """Locals and parameters whose name is a pronoun, an adverb or a verb form."""
    return [f"{place} {name}" for place, name in names(package) if is_vague(name)]


def missing_docstrings(package: str) -> list[str]:
    """Public modules, classes, functions and methods without a docstring; overrides inherit theirs."""
    places = []
    for path in modules(package):
        tree = _parsed(path)
        if tree.body and not ast.get_docstring(tree):
            places.append(_place(path, 1))
        places += [_place(path, node.lineno) + f" {node.name}" for node in _public(tree) if not ast.get_docstring(node)]
    return places


def _public(node: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for child in node.body:
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or child.name.startswith("_"):
            continue
        if any(ast.unparse(decorator).split(".")[-1] in ("override", "overload") for decorator in child.decorator_list):
            continue
        yield child
        if isinstance(child, ast.ClassDef):
            yield from _public(child)


def long_functions(package: str) -> list[str]:
    """Functions of more than 60 lines without their docstring: explaining one does not make it long."""
    return [
        f"{_place(path, node.lineno)} {node.name} ({lines} lines)"
        for path in modules(package)
        for node in ast.walk(_parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (lines := _lines(node)) > MAX_FUNCTION_LINES
    ]


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, without its docstring."""
    first = function.body[0]
    explains = ast.get_docstring(function, clean=False) is not None
    docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if explains else 0
    return (function.end_lineno or function.lineno) - function.lineno + 1 - docstring


def long_files(package: str) -> list[str]:
    """Files of more than 400 lines."""
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in modules(package)}
    return [f"{_place(path, 1)} ({lines} lines)" for path, lines in lengths.items() if lines > MAX_FILE_LINES]


def repeated_blocks(package: str) -> list[str]:
    """Runs of at least eight lines of code that stand in the package more than once, at every place but the first."""
    first: dict[tuple[str, ...], tuple[Path, int]] = {}
    repeats: dict[Path, list[tuple[int, str]]] = defaultdict(list)
    for path in modules(package):
        code = list(_code_lines(path))
        for index in range(len(code) - BLOCK_LINES + 1):
            window = code[index : index + BLOCK_LINES]
            origin = first.setdefault(tuple(text for _, text in window), (path, window[0][0]))
            if origin != (path, window[0][0]):
                repeats[path].append((index, f"{_place(path, window[0][0])} repeats {_place(*origin)}"))
    return [
        message
        for windows in repeats.values()
        for position, (index, message) in enumerate(windows)
        if not position or windows[position - 1][0] != index - 1
    ]


def _code_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that say something of their own, with their numbers: no blanks, comments, imports or closing brackets."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if any(character.isalnum() for character in text) and not text.startswith(("#", "import ", "from ")):
            yield number, text


COUNTS: dict[str, Callable[[str], list[str]]] = {
    "vague_names": vague_names,
    "missing_docstrings": missing_docstrings,
    "long_functions": long_functions,
    "long_files": long_files,
    "repeated_blocks": repeated_blocks,
}
"""What is counted, by package: each function lists the places."""
