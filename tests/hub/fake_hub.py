"""A fake Hugging Face Hub on loopback, with two users, private repositories, branches, commits and large files."""

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

#: Users by token.
USERS = {"hf_ann": "ann", "hf_bob": "bob"}


class FakeHub(ThreadingHTTPServer):
    """The server and its state.

    - `repositories`: for each `user/name`, whether the repository is private, the commit of each branch, and the files
      of each commit.
    - `large`: the uploaded large files by digest; a commit refers to a large file by its digest.
    - `requests`: the method and path of each request.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories, self.large, self.requests = {}, {}, []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def add(self, name, files, private=False):
        """Adds a repository with one commit directly, without the client."""
        self.repositories[name] = {"private": private, "branches": {}, "commits": {}}
        return self.commit(name, "main", files, "added")

    def commit(self, name, branch, files, message):
        """Makes a commit; each file is a pair of the file's bytes and whether the file is large."""
        repository = self.repositories[name]
        text = f"{name} {len(repository['commits'])} {message}"
        commit = hashlib.sha1(text.encode()).hexdigest()
        repository["commits"][commit] = {"files": files, "message": message}
        repository["branches"][branch] = commit
        return commit


class _Refused(Exception):
    """Raised to answer with a status other than 200."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHub

    def log_message(self, *_):
        pass

    def _answer(self):
        path = urlsplit(self.path).path
        self.server.requests.append((self.command, path))
        length = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = b""
            while size := int(self.rfile.readline(), 16):
                self.body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            self.body = self.rfile.read(length)
        authorization = self.headers.get("Authorization", "")
        self.user = USERS.get(authorization.removeprefix("Bearer "))
        try:
            if authorization and self.user is None:
                self._refuse(401, message="Invalid credentials in Authorization header")
            for method, pattern, answer in _ROUTES:
                if method == self.command.replace("HEAD", "GET") and (match := re.fullmatch(pattern, path)):
                    answer(self, *map(unquote, match.groups()))
                    return
            self._refuse(404, code="EntryNotFound")
        except _Refused as refused:
            status, headers = refused.args
            self._send(json.dumps({"error": headers.get("X-Error-Message", "")}).encode(), headers, status)

    do_GET = do_HEAD = do_POST = do_PUT = _answer

    def _refuse(self, status, code="", message=""):
        raise _Refused(status, {"X-Error-Code": code, "X-Error-Message": message})

    def _send(self, content, headers=None, status=200):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _reply(self, value):
        self._send(json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _find(self, name, writes=False):
        """Returns the repository if the user may read or write it."""
        found, owner = self.server.repositories.get(name), name.partition("/")[0]
        if found is None or (found["private"] and self.user != owner):
            self._refuse(404 if self.user else 401, code="RepoNotFound")
        if writes and self.user != owner:
            self._refuse(403 if self.user else 401, message="Forbidden")
        return found

    def _files(self, name, revision):
        """Returns the commit hash of a revision (a branch or a hash), and the files of that commit."""
        repository = self._find(name)
        commit = repository["branches"].get(revision, revision)
        if commit not in repository["commits"]:
            self._refuse(404, code="RevisionNotFound")
        return commit, repository["commits"][commit]["files"]

    def root(self):
        self._send(b"")

    def create(self):
        wanted = json.loads(self.body)
        if self.user is None:
            self._refuse(401, message="Invalid username or password.")
        name = f"{wanted['organization']}/{wanted['name']}"
        if wanted["organization"] != self.user:
            self._refuse(403, message="You don't have the rights to create a model under this namespace")
        if name in self.server.repositories:
            # The client takes the address from this answer.
            body = {"error": "You already created this model repo", "url": f"{self.server.url}/{name}"}
            self._send(json.dumps(body).encode(), status=409)
            return
        private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
        self.server.add(name, {".gitattributes": (b"", False)}, private)
        self._reply({"url": f"{self.server.url}/{name}"})

    def validate(self):
        content = json.loads(self.body)["content"]
        if "license: no-such-license" in content:
            body = {"errors": [{"message": '"license" must be one of the list'}], "warnings": []}
            self._send(json.dumps(body).encode(), status=400)
        else:
            self._reply({"errors": [], "warnings": []})

    def info(self, name, revision="main"):
        commit, files = self._files(name, revision)
        private, siblings = self.server.repositories[name]["private"], [{"rfilename": path} for path in files]
        self._reply({"id": name, "sha": commit, "private": private, "siblings": siblings, "tags": []})

    def tree(self, name, revision):
        _, files = self._files(name, revision)
        rows = []
        for path, (content, is_large) in files.items():
            row = {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            large = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 100}
            rows.append({**row, "lfs": large} if is_large else row)
        self._reply(rows)

    def branch(self, name, branch):
        repository = self._find(name, writes=True)
        if branch in repository["branches"]:
            self._refuse(409)
        repository["branches"][branch] = repository["branches"]["main"]
        self._reply({})

    def preupload(self, name, revision):
        self._find(name, writes=True)
        self._files(name, revision)
        modes = [
            {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular"}
            for file in json.loads(self.body)["files"]
        ]
        self._reply({"files": [{**mode, "shouldIgnore": False} for mode in modes]})

    def large_batch(self, name):
        self._find(name, writes=True)
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            url = f"{self.server.url}/large/{wanted['oid']}"
            actions = {"upload": {"href": url}, "verify": {"href": f"{url}/verify"}}
            known = wanted["oid"] in self.server.large
            objects.append(wanted if known else {**wanted, "actions": actions})
        self._reply({"transfer": "basic", "objects": objects})

    def large_put(self, digest):
        if hashlib.sha256(self.body).hexdigest() != digest:
            self._refuse(400, message="another digest")
        self.server.large[digest] = self.body
        self._send(b"")

    def large_verify(self, digest):
        wanted = json.loads(self.body)
        if len(self.server.large.get(digest, b"")) != wanted["size"]:
            self._refuse(404)
        self._reply({})

    def commit(self, name, branch):
        self._find(name, writes=True)
        _, files = self._files(name, branch)
        files, message = dict(files), ""
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            match line["key"]:
                case "header":
                    message = value["summary"]
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"]), False
                case "lfsFile":
                    files[value["path"]] = self.server.large[value["oid"]], True
                case "deletedFile":
                    del files[value["path"]]
        commit = self.server.commit(name, branch, files, message)
        self._reply({"commitUrl": f"{self.server.url}/{name}/commit/{commit}", "commitOid": commit})

    def resolve(self, name, revision, path):
        commit, files = self._files(name, revision)
        if path not in files:
            self._refuse(404, code="EntryNotFound")
        content, is_large = files[path]
        digest = hashlib.sha256(content) if is_large else hashlib.sha1(content)
        self._send(content, {"X-Repo-Commit": commit, "ETag": f'"{digest.hexdigest()}"'})


_NAME = r"([\w.-]+/[\w.-]+)"
_ROUTES = [
    ("GET", "/", _Handler.root),
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.validate),
    ("GET", f"/api/models/{_NAME}", _Handler.info),
    ("GET", f"/api/models/{_NAME}/revision/([^/]+)", _Handler.info),
    ("GET", f"/api/models/{_NAME}/tree/([^/]+)", _Handler.tree),
    ("POST", f"/api/models/{_NAME}/branch/([^/]+)", _Handler.branch),
    ("POST", f"/api/models/{_NAME}/preupload/([^/]+)", _Handler.preupload),
    ("POST", f"/api/models/{_NAME}/commit/([^/]+)", _Handler.commit),
    ("POST", f"/{_NAME}.git/info/lfs/objects/batch", _Handler.large_batch),
    ("PUT", r"/large/(\w+)", _Handler.large_put),
    ("POST", r"/large/(\w+)/verify", _Handler.large_verify),
    ("GET", f"/{_NAME}/resolve/([^/]+)/(.+)", _Handler.resolve),
]
