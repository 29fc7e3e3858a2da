"""Local servers that stand in for the network: plain files over HTTP, and the Hugging Face hub's files."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import unquote, urlparse


@contextmanager
def serve(answer) -> Iterator[SimpleNamespace]:
    """Serve ``answer(path) -> (status, headers, body)`` on a free port of this machine.

    Yields:
        ``url``, and ``asked``, the list of (method, path) so far.
    """
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = unquote(urlparse(self.path).path)
            asked.append((self.command, path))
            status, headers, body = answer(path)
            self.send_response(status)
            for name, value in ({'Content-Length': str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == 'GET':
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 (the name that http.server calls)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield SimpleNamespace(url=f'http://127.0.0.1:{server.server_port}', asked=asked)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def hub(repos: dict[str, dict[str, dict[str, bytes]]]):
    """What the hub answers, for ``{'owner/name': {'revision': {'file': content}}}``.

    Files are given by revision or commit; huggingface_hub is told the commit, the hash of the content and its size by
    headers, and what is missing by ``X-Error-Code``. Of the API there is what lists a repository.
    """

    def commit_of(repo: str, revision: str) -> str:
        return hashlib.sha1(f'{repo}@{revision}'.encode()).hexdigest()

    def by_name(repo: str, revision: str) -> str:
        """The revision that a commit is of; any other text as it is."""
        return {commit_of(repo, name): name for name in repos.get(repo, ())}.get(revision, revision)

    def listing(repo: str, kind: str, revision: str) -> tuple[int, dict, bytes]:
        revision = by_name(repo, revision)
        if revision not in repos.get(repo, ()):
            return 404, {'X-Error-Code': 'RevisionNotFound' if repo in repos else 'RepoNotFound'}, b''
        files = repos[repo][revision]
        if kind == 'tree':
            body: object = [
                dict(type='file', path=name, size=len(content), oid=hashlib.sha1(content).hexdigest())
                for name, content in files.items()
            ]
        else:
            siblings = [dict(rfilename=name) for name in files]
            body = dict(id=repo, sha=commit_of(repo, revision), siblings=siblings)
        return 200, {'Content-Type': 'application/json'}, json.dumps(body).encode()

    def answer(path: str) -> tuple[int, dict, bytes]:
        if match := re.fullmatch(r'/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)', path):
            return listing(*match.groups())
        if '/resolve/' not in path:  # other parts of its API
            return 404, {}, b''
        repo, rest = path.strip('/').split('/resolve/')
        revision, file = rest.split('/', 1)
        revision = by_name(repo, revision)
        if repo not in repos:
            return 401, {'X-Error-Code': 'RepoNotFound'}, b''
        if revision not in repos[repo]:
            return 404, {'X-Error-Code': 'RevisionNotFound'}, b''
        commit = commit_of(repo, revision)
        if file not in repos[repo][revision]:
            return 404, {'X-Error-Code': 'EntryNotFound', 'X-Repo-Commit': commit}, b''
        content = repos[repo][revision][file]
        return 200, {'X-Repo-Commit': commit, 'ETag': f'"{hashlib.sha1(content).hexdigest()}"'}, content

    return answer


def use_hub(monkeypatch, url: str, cache, offline: bool = False) -> None:
    """Point huggingface_hub, which reads its environment when it is imported, to a server and an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, 'ENDPOINT', url)
    monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', url + '/{repo_id}/resolve/{revision}/{filename}')
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(cache))
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', offline)
