"""Sign in with a token, and sign out."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from dashboards.site import Site, asks_json, read_form


def ask(request: Request) -> Response:
    """Redirect a stranger to the sign-in page, which leads back here."""
    if asks_json(request):
        return JSONResponse({"error": "A token is required: send Authorization: Bearer TOKEN."}, 401)
    if request.method not in ("GET", "HEAD") or "Authorization" in request.headers:
        return Response("a token is required: sign in at /login, or send Authorization: Bearer TOKEN\n", 401)
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"/login?next={quote(wanted, safe='')}", 303)


def add(app: FastAPI, site: Site) -> None:
    """Add the routes."""

    @app.get("/login")
    def login(request: Request, next: str = "/") -> Response:
        return site.show(request, "login.html", next=_local(next), wrong=False)

    @app.post("/login")
    async def enter(request: Request) -> Response:
        form = await read_form(request, 8)
        wanted = _local(form.get("next", "/"))
        person = site.access.known(form.get("token", "").strip())
        if person is None:
            return site.show(request, "login.html", status=403, next=wanted, wrong=True)
        response = RedirectResponse(wanted, 303)
        site.set_session(response, request, site.access.start(person.name))
        return response

    @app.post("/logout")
    def leave(request: Request, _: dict[str, str] = Depends(site.form("read"))) -> Response:
        site.access.end(request)
        response = RedirectResponse("/", 303)
        response.delete_cookie(site.access.cookie)
        return response


def _local(path: str) -> str:
    """The path if it is on this site, otherwise the first page."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"
