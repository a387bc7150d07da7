"""The directive `{api} MODULE`: the public names of a module, from their docstrings.

Docstrings of decigrad are Markdown with mathematics in Unicode (`x*`, `|x|`, `½xᵀPx`), which
reStructuredText, and so autodoc, would misread. The directive writes each name as a Python domain
description with the docstring as its Markdown content, and lets MyST parse it.

What is public: `__all__` of the module, or, without one, the names without underscore that it defines; or
the names in the option `:only:`, separated by commas. `:as:` is the module that the page shows.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import re
from types import ModuleType
from typing import Any, ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

SECTION = re.compile(
    r"^(Arguments|Args|Attributes|Returns|Yields|Raises|Statuses|Status|Gradient|Gradients|Example|Examples|Source"
    r"|Sources|Shapes|Note|Notes):[ \t]*(?P<rest>.*)$"
)
ITEM = re.compile(r"^(?P<name>[`*\w][\w`*., /|\[\]]{0,60}?):\s+(?P<text>\S.*)$")


def markdown(docstring: str) -> str:
    """A docstring as Markdown: sections become bold headings, their items a list, doctests fenced blocks."""
    lines = inspect.cleandoc(docstring).splitlines()
    out: list[str] = []
    i = 0
    while i < len(lines):
        found = SECTION.match(lines[i])
        if found is None:
            out.append(lines[i])
            i += 1
            continue
        i += 1
        body: list[str] = []
        while i < len(lines) and (not lines[i].strip() or lines[i].startswith(" ")):
            body.append(lines[i])
            i += 1
        title = "Arguments" if found[1] == "Args" else found[1]
        body = inspect.cleandoc("\n".join(["", *body])).splitlines()
        if found["rest"]:
            out += ["", f"**{title}** {found['rest']}", *body, ""]
        else:
            out += ["", f"**{title}**", "", *items(body), ""]
    return "\n".join(fence_doctests(out))


def items(body: list[str]) -> list[str]:
    """`name: text` lines, continued by indented ones, as a list; any other text as it stands."""
    if not any(ITEM.match(line) for line in body):
        return body
    out = []
    for line in body:
        found = ITEM.match(line)
        out.append(
            f"- `{found['name'].strip('`')}`: {found['text']}" if found else f"  {line.strip()}".rstrip()
        )
    return out


def fence_doctests(lines: list[str]) -> list[str]:
    """Put a fence around each run of `>>>` lines with their output, at the left margin."""
    out: list[str] = []
    inside = False
    for line in lines:
        if not inside and line.lstrip().startswith(">>>"):
            out += ["", "```pycon"]
            inside = True
        elif inside and not line.strip():
            out += ["```", ""]
            inside = False
        out.append(line.strip() if inside and line.lstrip().startswith((">>>", "...")) else line)
    return [*out, "```"] if inside else out


def signature(thing: Any, name: str) -> str:
    """Name and arguments, without annotations: types and shapes are told by the docstring."""
    try:
        found = inspect.signature(thing)
    except (TypeError, ValueError):
        return name
    bare = [
        p.replace(annotation=inspect.Parameter.empty)
        for p in found.parameters.values()
        if p.name not in {"self", "cls"} and not p.name.startswith("_")
    ]
    text = str(inspect.Signature(bare))
    return name + re.sub(r"<(?:function|class) '?(?:[\w.]*\.)?(\w+)'?[^>]*>", r"\1", text)


def described(thing: Any) -> str:
    """The docstring that a name defines itself, never one inherited from a base outside the package."""
    own = thing.__dict__.get("__doc__") if inspect.isclass(thing) else getattr(thing, "__doc__", None)
    # A dataclass without a docstring gets its own signature for one.
    return "" if own is None or own.startswith(f"{getattr(thing, '__name__', '')}(") else own


def block(kind: str, head: str, body: str, depth: int) -> str:
    colons = ":" * (6 - depth)
    return f"{colons}{{py:{kind}}} {head}\n\n{body}\n\n{colons}\n"


def describe(name: str, thing: Any) -> str:
    """One public name: a class with its public methods, a function, or a constant."""
    if not inspect.isclass(thing):
        if callable(thing):
            return block("function", signature(thing, name), markdown(described(thing)), 0)
        return block("data", name, "", 0)
    parts = [markdown(described(thing))]
    if issubclass(thing, enum.Enum):
        parts.append("Values: " + ", ".join(f"`{member.name}`" for member in thing) + ".")
    for key, member in vars(thing).items():
        if key.startswith("_"):
            continue
        if isinstance(member, (classmethod, staticmethod)):
            kind, target = "method", member.__func__
        elif isinstance(member, property):
            kind, target = "property", member.fget
        elif inspect.isfunction(member):
            kind, target = "method", member
        else:
            continue
        doc = described(target)
        if doc:
            head = signature(target, key) if kind == "method" else key
            parts.append(block(kind, head, markdown(doc), 1))
    kind = "exception" if issubclass(thing, BaseException) else "class"
    constructed = not (issubclass(thing, (BaseException, enum.Enum)) or getattr(thing, "_is_protocol", False))
    head = signature(thing, name) if constructed else name
    return block(kind, head, "\n\n".join(parts), 0)


def public_names(module: ModuleType) -> list[str]:
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, thing in vars(module).items()
        if not name.startswith("_") and getattr(thing, "__module__", None) == module.__name__
    ]


def names(argument: str) -> list[str]:
    return [name.strip() for name in argument.replace("\n", " ").split(",")]


class ApiDirective(SphinxDirective):
    """`{api} decigrad.losses`."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {"only": names, "as": str}

    def run(self) -> list[nodes.Node]:
        module = importlib.import_module(self.arguments[0])
        chosen = self.options.get("only") or public_names(module)
        missing = [name for name in chosen if not hasattr(module, name)]
        if missing:
            raise self.error(f"{module.__name__} has no {', '.join(missing)}")
        shown = self.options.get("as", module.__name__)
        text = [f"```{{py:currentmodule}} {shown}\n```\n"]
        text += [describe(name, getattr(module, name)) for name in chosen]
        return self.parse_text_to_nodes("\n".join(text))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("api", ApiDirective)
    return {"parallel_read_safe": True}
