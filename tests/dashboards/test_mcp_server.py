"""A workspace as tools, as the client of the protocol's SDK sees it over stdin and stdout."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import anyio
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from dashboards.mcp_server import TOOLS, build
from flywheel.core.workspace import Workspace
from tests.dashboards.workspace import PROBED

ROOT = Path(__file__).resolve().parents[2]
ARGUMENTS = {"round": {"number": 2}, "case": {"case_id": PROBED}, "why": {"id": PROBED}, "cost": {"core": 0.5},
             "compare": {"show": "broken"}, "cases": {"capability": "typography", "page": 2},
             "training": {"run": ["round-0002-candidate"]},
             "sql": {"q": "SELECT count(*) AS n FROM cases"}}  # fmt: skip
WITHOUT = {"sample", "what_if"}  # the snapshot of the fixture has neither stages nor a policy


@pytest.mark.slow
def test_every_page_is_a_tool_over_stdin_and_stdout(workspace: Workspace) -> None:
    async def session() -> None:
        command = ["-m", "flywheel.cli", "mcp", "-w", str(workspace.root)]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        started = StdioServerParameters(command=sys.executable, args=command, env=env)
        async with Client(stdio_client(started)) as client:
            tools = {t.name: t for t in (await client.list_tools()).tools}
            assert tools.keys() == TOOLS.keys() and all(t.description for t in tools.values())
            assert all(t.annotations and t.annotations.read_only_hint for t in tools.values())
            assert "reviewer" not in tools["cases"].input_schema["properties"]
            for name in TOOLS.keys() - WITHOUT:
                answer = await client.call_tool(name, ARGUMENTS.get(name, {}))
                assert not answer.is_error, (name, answer.content)
                told = json.loads(answer.content[0].text)
                if name == "sql":
                    assert told["columns"] == ["n"] and told["rows"][0][0] > 50
                if name == "cases":
                    assert len(told["cases"]) == 10 and told["paging"]["page"] == 2

    anyio.run(session)


def asked(workspace: Workspace, tool: str, arguments: dict) -> tuple[bool, str]:
    async def session() -> tuple[bool, str]:
        async with Client(build(workspace)) as client:
            answer = await client.call_tool(tool, arguments)
            return answer.is_error, answer.content[0].text

    return anyio.run(session)


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("case", {}, "case needs the argument 'case_id'"),
        ("cases", {"colour": 1}, "cases has no argument 'colour': it has capability, track, status, round"),
        ("cases", {"reviewer": "ada"}, "cases has no argument 'reviewer'"),
        ("case", {"case_id": {"a": 1}}, "case: the argument 'case_id' is wrong: Input should be a valid string"),
        ("case", {"case_id": "no/../such"}, "Not Found"),
        ("cases", {"page": "x"}, "'x' is not a number."),
        ("round", {"number": 99}, "There is no round 99."),
        ("sql", {"q": "DROP TABLE cases"}, "give exactly one SELECT statement: queries only read"),
        ("sql", {"q": "SELECT * FROM read_text('/etc/passwd')"}, "Permission Error"),
        ("cost", {"core": "free"}, "core='free' is not a price"),
        ("what_if", {"thresholds": {"S9.none.min": 1}}, "curate the pool again"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(workspace: Workspace, tool: str, arguments: dict, said: str) -> None:
    wrong, told = asked(workspace, tool, arguments)
    assert wrong and said in told and "Error executing" not in told, told
