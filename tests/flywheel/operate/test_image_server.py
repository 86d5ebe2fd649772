"""The image server on a real port: our client of such servers draws from it, and odd requests are refused."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from flywheel.core.errors import UsageError
from flywheel.core.image import decode
from flywheel.core.records import System
from flywheel.core.workspace import Workspace
from flywheel.generators.checkpoint import CheckpointGenerator
from flywheel.generators.endpoint import EndpointGenerator
from flywheel.operate import image_server
from flywheel.operate.image_server import Served, create_app
from flywheel.operate.image_workers import Job, Picture, Queue, Worker
from flywheel.rounds.sample import promoted_system
from tests.flywheel.operate.in_service import SIDE, in_service, one_thread
from tests.training.rl_parts import serving

TOKEN = "a-token-of-sixteen-characters"
NAMES = {"seed": "seed", "steps": "num_inference_steps", "guidance": "guidance_scale", "negative": "negative_prompt"}
SETTINGS = {"size": (SIDE, 2 * SIDE), "steps": 2, "guidance": 2.0, "negative": "a blue square"}


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    rules = {"backend": "rules", "model": "", "key_variable": "", "sha256": ""}
    return in_service(tmp_path_factory.mktemp("served") / "w", enhancer=rules)


@pytest.fixture(scope="module")
def url(workspace: Workspace) -> Iterator[str]:
    """A server with one worker, and room for two pictures to wait."""
    queue = Queue([Worker(workspace.root)], limit=2)
    queue.load(promoted_system(workspace))
    with serving(create_app(queue, Served(lambda: promoted_system(workspace)), "")) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=120, transport=httpx.HTTPTransport(retries=8)) as session:
        yield session


def generator(url: str, **changes: object) -> EndpointGenerator:
    return EndpointGenerator(**{"url": f"{url}/v1", "model": "flywheel", "names": NAMES, "attempts": 20} | changes)


def alike(a: object, b: object) -> bool:
    return a.shape == b.shape and np.abs(a.astype(int) - b).max() <= 1


def test_our_client_draws_the_pictures_of_the_checkpoint(url: str, workspace: Workspace) -> None:
    """Six at once, for which the queue has no room: the client waits as the server asks."""
    prompts, seeds = ["a red circle", "a blue circle on the left"] * 3, list(range(6))
    drawn = list(generator(url, concurrency=6, longest_wait=2).draw(prompts, seeds=seeds, **SETTINGS))
    own = CheckpointGenerator(str(workspace.path(promoted_system(workspace).checkpoint)))
    for picture, prompt, seed in zip(drawn, prompts, seeds, strict=True):
        (alone,) = own.draw([prompt], seeds=[seed], **SETTINGS)
        assert alike(picture, alone)
    assert not alike(drawn[0], drawn[1])


def test_our_client_edits_several_pictures_below_a_mask(url: str, workspace: Workspace) -> None:
    rng, size = np.random.default_rng(0), {"size": (SIDE, SIDE), "steps": 2, "guidance": 1.0}
    pictures = [rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for _ in range(2)]
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:, SIDE // 2 :] = 255
    own = CheckpointGenerator(str(workspace.path(promoted_system(workspace).checkpoint)))
    for masks in (None, [mask]):
        asked = {"prompts": ["make it green"], "seeds": [7], "references": [pictures], "masks": masks}
        (edited,), (alone,) = generator(url).draw(**asked, **size), own.draw(**asked, **size)
        assert alike(edited, alone)
    assert (edited[:, : SIDE // 2] == pictures[0][:, : SIDE // 2]).all()
    assert (edited[:, SIDE // 2 :] != pictures[0][:, SIDE // 2 :]).any()


def test_models_health_and_what_an_answer_says(client: httpx.Client, workspace: Workspace) -> None:
    system = promoted_system(workspace)
    assert [m["id"] for m in client.get("/v1/models").json()["data"]] == ["flywheel", system.id]
    assert client.get("/healthz").json() == {"ok": True, "workers": 1, "drawing": 0, "waiting": 0}
    asked = {"prompt": "pls draw me 2 circles", "model": system.id, "n": 2, "seed": 5, "response_format": "b64_json"}
    answer = client.post("/v1/images/generations", json=asked).json()
    assert answer["model"] == system.id and [d["seed"] for d in answer["data"]] == [5, 6]
    assert {d["revised_prompt"] for d in answer["data"]} == {"two circles"}
    first, second = (base64.b64decode(d["b64_json"]) for d in answer["data"])
    assert first != second and decode(first).size == (SIDE, SIDE)
    again = client.post("/v1/images/generations", json={"prompt": "two circles", "seed": 5}).json()["data"][0]
    assert base64.b64decode(again["b64_json"]) == first and "revised_prompt" not in again


def files(*names: str) -> list[tuple[str, tuple[str, bytes, str]]]:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(buffer, "PNG")
    return [(name, ("x.png", buffer.getvalue(), "image/png")) for name in names]


def test_what_is_wrong_has_openais_shape_and_one_sentence(client: httpx.Client) -> None:
    draw, edit, asked = "/v1/images/generations", "/v1/images/edits", {"prompt": "a red circle"}
    cases = [
        (client.post(draw, content=b"{"), 400, "the body is not JSON"),
        (client.post(draw, content=b'{"prompt": "x", "guidance_scale": NaN}'), 400, "NaN is not a JSON number"),
        (client.post(draw, json={"prompt": ""}), 400, "prompt: give a text"),
        (client.post(draw, json=asked | {"size": "30x32"}), 400, "multiples of 8"),
        (client.post(draw, json=asked | {"model": "dall-e-3"}), 404, "is not served: use 'flywheel'"),
        (client.post(draw, json=asked | {"n": 4}), 400, "at most 3 pictures fit into the queue"),
        (client.post(draw, json=asked, headers={"Host": "evil.example"}), 400, "under its own address"),
        (client.post(draw, json=asked, headers={"Sec-Fetch-Site": "cross-site"}), 403, "another site"),
        (client.post(edit, json=asked), 400, "multipart/form-data"),
        (client.post(edit, content=b"x", headers={"Content-Type": "multipart/form-data"}), 400, "boundary"),
        (client.post(edit, data=asked, files=files("file")), 400, "unknown file 'file'"),
        (client.post(edit, data=asked | {"mask": "x"}, files=files("image")), 400, "mask: send it as a file"),
        (client.post(edit, data=asked, files=files("mask")), 400, "1 to 16 pictures"),
        (client.post(edit, data=asked, files=files("image", "mask", "mask")), 400, "mask: send one"),
        (client.post(edit, data=asked, files=files("image", "mask")), 400, "no transparent part"),
        (client.post(edit, data=asked, files=files(*["image[]"] * 20)), 400, "17"),
        (client.get("/v1/nothing"), 404, "Not Found"),
        (client.get(draw), 405, "Method Not Allowed"),
    ]
    for answer, status, sentence in cases:
        error = answer.json()["error"]
        assert (answer.status_code, sorted(error)) == (status, ["code", "message", "param", "type"]), answer.text
        assert sentence in error["message"], answer.text
    assert client.get("/healthz").json()["waiting"] == 0


class Held:
    """A worker that draws once it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def draw(self, job: Job) -> Picture:
        self.go.wait(60)
        return Picture(b"png")

    def interrupt(self) -> None:
        """It goes on: what it draws ends by itself."""

    def close(self) -> None:
        self.go.set()


def reading() -> System:
    return System(checkpoint="c")


def held(**options: object) -> tuple[Held, Queue, httpx.AsyncClient]:
    worker = Held()
    queue = Queue([worker], limit=1)
    app = create_app(queue, Served(lambda: reading()), "", **options)
    return worker, queue, httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")


def test_a_full_queue_says_when_to_come_back() -> None:
    async def main() -> None:
        worker, queue, client = held()
        ask = {"url": "/v1/images/generations", "json": {"prompt": "x"}}
        two = [asyncio.create_task(client.post(**ask)) for _ in range(2)]
        while queue.waiting < 1:
            await asyncio.sleep(0.01)
        refused = await client.post(**ask)
        assert refused.status_code == 429 and int(refused.headers["Retry-After"]) >= 1
        assert refused.json()["error"]["type"] == "rate_limit_error"
        worker.go.set()
        assert [(await answer).status_code for answer in two] == [200, 200]

    asyncio.run(main())


def test_a_request_that_takes_too_long_is_answered_and_leaves_the_queue() -> None:
    async def main() -> None:
        worker, queue, client = held(seconds=0.2)
        ask = {"url": "/v1/images/generations", "json": {"prompt": "x"}}
        for answer in await asyncio.gather(*[client.post(**ask) for _ in range(2)]):
            assert answer.status_code == 503 and "within 0.2 s" in answer.json()["error"]["message"]
        assert queue.waiting == 0
        worker.go.set()
        while queue.drawing:
            await asyncio.sleep(0.01)
        assert (await client.post(**ask)).status_code == 200

    asyncio.run(main())


def test_pictures_of_a_client_that_left_are_not_drawn() -> None:
    worker = Held()
    queue = Queue([worker], limit=1)
    with serving(create_app(queue, Served(lambda: System(checkpoint="c")), "")) as url:
        with httpx.Client(transport=httpx.HTTPTransport(retries=8), timeout=0.5) as impatient:
            impatient.get(f"{url}/healthz")
            for _ in range(2):
                with pytest.raises(httpx.ReadTimeout):
                    impatient.post(f"{url}/v1/images/generations", json={"prompt": "x"})
            until = time.monotonic() + 10
            while (left := impatient.get(f"{url}/healthz").json())["waiting"] and time.monotonic() < until:
                time.sleep(0.01)  # the server hears of it a moment later
        worker.go.set()
    assert (left["drawing"], left["waiting"]) == (1, 0)


def test_beyond_this_machine_a_token_is_needed(tmp_path: Path) -> None:
    async def main() -> None:
        app = create_app(Queue([Held()], limit=1), Served(lambda: System(checkpoint="c")), TOKEN, host="0.0.0.0")
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://anywhere") as client:
            refused = await client.get("/v1/models")
            assert refused.status_code == 401 and refused.json()["error"]["type"] == "authentication_error"
            assert (await client.get("/healthz")).status_code == 200
            known = await client.get("/v1/models", headers={"Authorization": f"Bearer {TOKEN}"})
            assert known.status_code == 200

    asyncio.run(main())
    for token, sentence in (("", "set FLYWHEEL_IMAGES_TOKEN to a token"), ("short", "at least 16")):
        with pytest.raises(UsageError, match=sentence):
            create_app(Queue([Held()], limit=1), Served(lambda: System(checkpoint="c")), token, host="0.0.0.0")


def test_a_promotion_needs_no_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    first = System(checkpoint="c")
    systems = iter([first, first, replace(first, checkpoint="d")])
    served = Served(lambda: next(systems))
    monkeypatch.setattr(image_server, "REFRESH_SECONDS", 0.0)
    assert [asyncio.run(served.now()).checkpoint for _ in range(2)] == ["c", "d"]


def test_without_a_system_in_service_any_more_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        worker, queue, client = held()
        assert (await client.get("/v1/models")).status_code == 200
        monkeypatch.setattr(image_server, "REFRESH_SECONDS", 0.0)
        answer = await client.post("/v1/images/generations", json={"prompt": "x"})
        assert answer.status_code == 503 and "no promoted checkpoint" in answer.json()["error"]["message"]

    def read() -> System:
        if image_server.REFRESH_SECONDS:
            return System(checkpoint="c")
        raise UsageError("w has no promoted checkpoint: finish a round")

    monkeypatch.setattr("tests.flywheel.operate.test_image_server.reading", read)
    asyncio.run(main())
