"""The dashboard's pages as tools of the Model Context Protocol, read-only: calls, limits and sentences of `/api`."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable
from importlib import metadata
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from dashboards.app import create_app
from dashboards.site import API
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

TOOLS = {
    "overview": "", "live": "/live", "round": "/rounds/{number}", "cases": "/cases", "case": "/cases/{case_id}",
    "compare": "/compare", "calibration": "/calibration", "funnel": "/funnel", "samples": "/samples",
    "sample": "/samples/{sample_id}", "sources": "/sources", "coverage": "/coverage", "what_if": "/what-if",
    "training": "/training", "cost": "/cost", "why": "/why", "sql": "/sql",
}  # fmt: skip
PAGE = 10  # cases or samples per answer: a model reads all of it
ABOUT = """A Flywheel workspace, read-only: curation of training pictures, failure cases of an image generator, and the
rounds that repair them. `sql` answers any SELECT; called without one, it lists all views with each column's meaning.
Lists are paged: `page` counts from 1."""
_VISITOR = ("request", "reviewer", "changed", "answered")  # parameters of pages that are about a visitor's session


def build(workspace: Workspace) -> MCPServer:
    """The server of a workspace. Errors: `ModuleNotFoundError` without the extra `mcp`."""
    from mcp.server.mcpserver import MCPServer

    app = create_app(workspace, page_size=PAGE)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    client = httpx.AsyncClient(transport=transport, base_url="http://localhost")
    pages: dict[str, Any] = {getattr(route, "path", ""): route for route in app.routes}
    tools = [_tool(client, name, path, pages[API + path].endpoint.__wrapped__) for name, path in TOOLS.items()]
    version = metadata.version("image-flywheel")
    return MCPServer("flywheel", instructions=ABOUT, version=version, log_level="ERROR", tools=tools)


def _tool(client: httpx.AsyncClient, name: str, path: str, function: Callable[..., Any]) -> Any:
    """A page as a tool, with its own parameters and description; wrong arguments are answered with a sentence."""
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.server.mcpserver.tools.base import Tool
    from mcp_types import ToolAnnotations

    class Page(Tool):
        async def run(self, arguments: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            known = self.parameters["properties"]
            if unknown := arguments.keys() - known.keys():
                choice = f"it has {', '.join(known)}" if known else "it has none"
                raise ToolError(f"{self.name} has no argument {min(unknown)!r}: {choice}")
            if missing := [n for n in self.parameters.get("required", ()) if n not in arguments]:
                raise ToolError(f"{self.name} needs the argument {missing[0]!r}")
            try:
                return await super().run(arguments, *args, **kwargs)
            except ToolError as error:
                raise ToolError(_sentence(self.name, error)) from error

    return Page.from_function(
        _call(client, name, path, function),
        name=name,
        description=inspect.getdoc(function),
        annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False),
        structured_output=False,
    )


def _call(
    client: httpx.AsyncClient, name: str, path: str, function: Callable[..., Any]
) -> Callable[..., Awaitable[str]]:
    """The page as a function of its parameters, that returns JSON; raises the page's own sentence."""

    async def call(**values: Any) -> str:
        from mcp.server.mcpserver.exceptions import ToolError

        inside = {k: quote(str(v), safe="") for k, v in values.items() if f"{{{k}}}" in path}
        query = {k: v for k, v in values.items() if k not in inside and k != "thresholds"}
        query |= {k: str(v) for k, v in values.get("thresholds", {}).items()}
        answer = await client.get(API + path.format(**inside), params=query)
        told = answer.json() if "json" in answer.headers.get("content-type", "") else {}
        if answer.status_code != 200 or told.get("fault"):
            raise ToolError(told.get("fault") or told.get("error") or f"the page has status {answer.status_code}")
        shown = told["answer"] if name == "sql" and told["answer"] else told
        return json.dumps(shown, ensure_ascii=False)

    parameters = [
        p.replace(annotation=list[str] if "list" in str(p.annotation) else str | int | float, kind=p.KEYWORD_ONLY)
        for p in inspect.signature(function, eval_str=True).parameters.values()
        if p.name not in _VISITOR
    ]
    if name == "what_if":
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter("thresholds", kind, default={}, annotation=dict[str, float]))
    call.__name__ = name
    call.__signature__ = inspect.Signature(parameters, return_annotation=str)  # type: ignore[attr-defined]
    return call


def _sentence(name: str, error: Exception) -> str:
    """What the page said, or which argument has a wrong type."""
    from pydantic import ValidationError

    if isinstance(cause := error.__cause__, ValidationError):
        first = cause.errors()[0]
        return f"{name}: the argument {str(first['loc'][0])!r} is wrong: {first['msg']}"
    return str(error).removeprefix(f"Error executing tool {name}: ")
