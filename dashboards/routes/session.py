"""Signing in with a token, and out."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from dashboards.site import Site


def ask(request: Request) -> Response:
    """Send a stranger to the page that asks for a token, and from there back."""
    if request.method not in ("GET", "HEAD") or "Authorization" in request.headers:
        return Response("give a token: sign in at /login, or send Authorization: Bearer TOKEN\n", 401)
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"/login?next={quote(wanted, safe='')}", 303)


def add(app: FastAPI, site: Site) -> None:
    """Add the routes."""

    @app.get("/login")
    def login(request: Request, next: str = "/") -> Response:
        return site.show(request, "login.html", next=_ours(next), wrong=False)

    @app.post("/login")
    async def enter(request: Request) -> Response:
        async with request.form(max_files=0, max_fields=8) as sent:
            token, wanted = str(sent.get("token", "")), _ours(str(sent.get("next", "/")))
        person = site.access.known(token.strip())
        if person is None:
            return site.show(request, "login.html", status=403, next=wanted, wrong=True)
        response = RedirectResponse(wanted, 303)
        site.set_session(response, request, site.access.start(person.name))
        return response

    @app.post("/logout")
    def leave(request: Request, _: dict = Depends(site.form("read"))) -> Response:
        response = RedirectResponse("/", 303)
        response.delete_cookie(site.access.cookie)
        return response


def _ours(path: str) -> str:
    """The path when it is on this site, else the first page."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"
