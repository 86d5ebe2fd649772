"""The playground's page: what is drawn, answered and refused. `test_browser.py` clicks through it."""

import io
from collections.abc import Iterator

import pytest
from PIL import Image

from dashboards.access import Access
from dashboards.app import MAX_FORM
from dashboards.routes.playground import MAX_UPLOAD
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from tests.dashboards.visits import REVIEWERS, Page, hidden, opened, send, signed_in
from tests.flywheel.generators.image_server import Server, serving

PAGE = "/playground"


@pytest.fixture(scope="module")
def images() -> Iterator[Server]:
    """An image server that paints cards of the color that a prompt names."""
    with serving() as server:
        yield server


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path / "w")


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(buffer, "PNG")
    return buffer.getvalue()


def feedback(workspace: Workspace) -> list[dict]:
    return Ledger(workspace, "signals").rows()


def test_without_an_image_server_the_page_says_how_to_get_one(workspace: Workspace) -> None:
    visitor = opened(workspace)
    page = Page(visitor.get(PAGE).text)
    assert (
        "No image server is configured. Start one, then this dashboard" in page.text and "serve images -w" in page.text
    )
    assert not [t for t, _ in page.elements if t == "textarea"]
    token = hidden(visitor.get("/review").text, "csrf") if "csrf" in visitor.get("/review").text else ""
    answer = visitor.post(PAGE, data={"csrf": token, "prompt": "x", "size": "64x64"})
    assert answer.status_code in (403, 422) and not workspace.path("playground").exists()


def test_a_picture_is_drawn_and_a_thumb_recorded_once(workspace: Workspace, images: Server) -> None:
    visitor = opened(workspace, images=images.url)
    drawn = send(visitor, PAGE, PAGE, prompt='a blue card <b>"OPEN"', size="24x16")
    page = Page(drawn.text)
    shots = [a for t, a in page.elements if t == "img"]
    assert len(shots) == 1 and shots[0]["src"].startswith("/files/playground/")
    assert Image.open(io.BytesIO(visitor.get(shots[0]["src"].split("?")[0]).content)).size == (24, 16)
    assert 'a blue card <b>"OPEN"' in page.text  # text, not markup
    here = str(drawn.url).removeprefix("http://127.0.0.1")
    said = send(visitor, here, f"{PAGE}/answer", thumbs="down", reason="the word is wrong")
    assert "Recorded: a signal that it fails" in Page(said.text).text
    again = send(visitor, here, f"{PAGE}/answer", thumbs="up")
    assert "You had answered before" in Page(again.text).text
    (row,) = feedback(workspace)
    assert (row["passed"], row["task"], row["prompt"]) == (False, "t2i", 'a blue card <b>"OPEN"')
    assert send(visitor, here, f"{PAGE}/answer", thumbs="sideways").status_code == 422
    assert send(visitor, here, f"{PAGE}/answer", id="0" * 32, thumbs="up").status_code == 404


def test_an_edit_sends_the_uploaded_pictures(workspace: Workspace, images: Server) -> None:
    visitor = opened(workspace, images=images.url)
    token = hidden(visitor.get(PAGE).text, "csrf")
    files = [("picture", ("a.png", png(), "image/png")), ("picture", ("", b"", "application/octet-stream"))]
    sent = {"csrf": token, "prompt": "make it green", "size": "32x32"}
    drawn = visitor.post(PAGE, data=sent, files=files)
    asked = images.asked[-1]
    assert drawn.status_code == 200 and asked["path"] == "/v1/images/edits" and len(asked["image[]"]) == 1
    assert len([t for t, _ in Page(drawn.text).elements if t == "img"]) == 2  # the upload and the edit
    broken = visitor.post(PAGE, data=sent, files=[("picture", ("a.png", b"text", "image/png"))])
    assert broken.status_code == 422 and "the picture to edit cannot be read" in Page(broken.text).text
    assert visitor.post(PAGE, data=sent, files=files[:1] * 5).status_code == 400  # more than four


def test_what_is_wrong_is_said_on_the_page_which_keeps_the_prompt(workspace: Workspace, images: Server) -> None:
    visitor = opened(workspace, images=images.url)
    for fields, sentence in (
        ({"prompt": "a red card", "size": "big"}, "such as 64x64"),
        ({"prompt": " ", "size": "16x16"}, "write what to draw"),
    ):
        answer = send(visitor, PAGE, PAGE, **fields)
        assert answer.status_code == 422 and sentence in Page(answer.text).text
        assert fields["prompt"] in answer.text
    images.faults = [(400, b"content policy")]
    assert "content policy" in Page(send(visitor, PAGE, PAGE, prompt="a red card", size="16x16").text).text
    nobody = opened(workspace, images="http://127.0.0.1:9/v1")
    assert "no usable answer" in Page(send(nobody, PAGE, PAGE, prompt="a red card", size="16x16").text).text
    assert not workspace.path("playground").exists()


def test_who_may_draw_and_how_much_may_be_sent(workspace: Workspace, images: Server) -> None:
    visitor = opened(workspace, images=images.url)
    sent = {"prompt": "a red card", "size": "16x16"}
    assert visitor.post(PAGE, data=sent | {"csrf": ""}).status_code == 403
    token = hidden(visitor.get(PAGE).text, "csrf")
    elsewhere = {"Origin": "http://elsewhere.example"}
    assert visitor.post(PAGE, data=sent | {"csrf": token}, headers=elsewhere).status_code == 403
    large = [("picture", ("a.png", b"x" * (MAX_UPLOAD + 1), "image/png"))]
    assert visitor.post(PAGE, data=sent | {"csrf": token}, files=large).status_code == 413
    assert visitor.post(f"{PAGE}/answer", data={"csrf": token, "reason": "x" * MAX_FORM}).status_code == 413
    asked = len(images.asked)
    eve = opened(workspace, Access(REVIEWERS), images=images.url)
    eve.post("/login", data={"token": "eve-has-this-token"})
    page = eve.get(PAGE)
    assert "Your token has the role read" in Page(page.text).text
    assert eve.post(PAGE, data=sent | {"csrf": hidden(page.text, "csrf")}).status_code == 403
    assert opened(workspace, Access(REVIEWERS), images=images.url).post(PAGE, data=sent).status_code == 401
    assert len(images.asked) == asked
    assert signed_in(workspace, "ada").get(PAGE).status_code == 200
