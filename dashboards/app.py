"""The dashboard: pages over a workspace. Listens on loopback by default.

Reviews, votes and decisions call the same functions as the command. The role read can change nothing.
"""

from __future__ import annotations

import errno
import sys
import time
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from dashboards.access import LOOPBACK, Access, require_reachable_safely
from dashboards.page import STYLE
from dashboards.routes import (
    answers,
    arena,
    ask,
    books,
    browse,
    calibration,
    compare,
    live,
    operate,
    playground,
    pool_map,
    review,
    samples,
    session,
)
from dashboards.site import API, Site
from flywheel.core import damage, serving
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from flywheel.rounds.live import Watch

PAGE = 48  # cases
MAX_FORM = 64 << 10  # bytes
PUBLIC = ("/login", "/static/", "/healthz")  # served to strangers

# Only our own files may run, whatever a prompt or a file name contains.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # no-referrer would also hide from us which site sent a form
    "Cache-Control": "no-store",
}


def create_app(
    workspace: Workspace, access: Access | None = None, *, page_size: int = PAGE, images: str = ""
) -> FastAPI:
    """The application. Every request reads the files as they are at that moment.

    page_size: cases per page; images: URL of the image server behind the playground, empty for none.
    """
    access = access or Access()
    site = Site.of(workspace, access)
    app = FastAPI(title="Flywheel", docs_url=None, redoc_url=None, openapi_url=None)
    # Pages contain a secret next to text that others wrote, so only files are compressed (BREACH).
    app.mount("/static", GZipMiddleware(StaticFiles(directory=STYLE.parent), minimum_size=1000, compresslevel=6))
    session.add(app, site)
    watch = Watch(workspace)
    browse.add(app, site, watch, page_size=page_size)
    live.add(app, site, watch)
    samples.add(app, site, page_size=page_size)
    pool_map.add(app, site)
    ask.add(app, site)
    compare.add(app, site, page_size=page_size)
    calibration.add(app, site)
    review.add(app, site)
    answers.add(app, site)
    arena.add(app, site)
    books.add(app, site)
    operate.add(app, site)
    playground.add(app, site, images)

    _guard(app, site)
    _say_errors(app, site)
    if access.open:  # another host name that resolves to this machine is another site's (DNS rebinding)
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK), www_redirect=False)
    return app


def _guard(app: FastAPI, site: Site) -> None:
    """Ask of each request who sends it, and refuse those that may not; time them."""

    @app.middleware("http")
    async def guard(request: Request, call_next: Any) -> Response:
        began = time.perf_counter()
        request.state.person = site.access.person(request)
        response = refusal(request) or await call_next(request)
        spent = {**getattr(request.state, "spent", {}), "total": time.perf_counter() - began}
        response.headers["Server-Timing"] = ", ".join(f"{k};dur={1000 * v:.1f}" for k, v in spent.items())
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if request.url.path.startswith("/static/"):
            response.headers["Cache-Control"] = "no-cache"  # cached, and sent again only after a change
        return response

    def refusal(request: Request) -> Response | None:
        """The refusal of a request; None if it may proceed."""
        if not site.access.same_site(request, costly=request.url.path.removeprefix(API) in ask.COSTLY):
            return site.failure(request, 403, "Another site sent this request: open the address yourself.")
        if request.method not in ("GET", "HEAD"):
            if not site.access.same_origin(request):
                return site.failure(request, 403, "Another site sent this form.")
            most = playground.MAX_UPLOAD if request.url.path == playground.HERE else MAX_FORM
            unbounded = most + 1 if "Transfer-Encoding" in request.headers else 0
            if int(request.headers.get("Content-Length", unbounded)) > most:
                return site.failure(request, 413, f"Send at most {most} bytes, with a Content-Length.")
        if request.state.person is None and not request.url.path.startswith(PUBLIC):
            return session.ask(request)
        return None


def _say_errors(app: FastAPI, site: Site) -> None:
    """Answer every error that a person can do something about with a sentence."""
    import duckdb

    @app.exception_handler(AnyHTTPException)
    def failed(request: Request, error: AnyHTTPException) -> Response:
        return site.failure(request, error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    def malformed(request: Request, error: RequestValidationError) -> Response:
        where, what = error.errors()[0]["loc"], error.errors()[0]["msg"]
        return site.failure(request, 422, f"{'.'.join(map(str, where[1:]))}: {what}.")

    @app.exception_handler(UsageError)
    def misused(request: Request, error: UsageError) -> Response:
        return site.failure(request, 422, f"{error}.")

    @app.exception_handler(OSError)
    def unwritable(request: Request, error: OSError) -> Response:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            return damaged(request, error)
        return site.failure(request, 409, "This workspace is read-only: nothing was recorded.")

    @app.exception_handler(ValueError)
    @app.exception_handler(duckdb.Error)
    def damaged(request: Request, error: Exception) -> Response:
        if (sentence := damage.told(error)) is None:
            raise error
        return site.failure(request, 500, f"{sentence[:1].upper()}{sentence[1:]}.")


def serve(
    workspace: Workspace,
    host: str = "127.0.0.1",
    port: int = 8050,
    access: Access | None = None,
    *,
    images: str = "",
) -> None:
    """Serve until interrupted. Port 0 chooses a free one. Errors: `UsageError` if it cannot, or must not, listen."""
    import python_multipart  # noqa: F401 - reads forms: if it is missing, fail now and not at the first vote

    access = access or Access()
    require_reachable_safely(host, access)
    listener = serving.listen(host, port)
    print(f"dashboard at http://{host}:{listener.getsockname()[1]}/ (Ctrl-C stops it)", file=sys.stderr, flush=True)
    app = create_app(workspace, access, images=images)
    serving.serve(app, listener)
