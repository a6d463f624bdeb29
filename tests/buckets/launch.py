"""Starts moto's S3 server for tests, on a free port.

Prints one JSON line with its address and ends when stdin closes, so that it never outlives the test that
started it. With --gcs it answers as Google Cloud Storage's XML interface, which is that of S3 but for the
conditions of a write: they name a generation, here the number that an object's ETag is.

POST /test/fail-after/N lets N more writes through and then answers 503 to each, until it is called again;
GET /test/uploaded tells how many bytes of objects were written.
"""
import json
import os
import sys
import threading

from moto.moto_api._internal import mock_random  # noqa: F401  (fails early where moto is not whole)
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

GCS = "--gcs" in sys.argv
moto = DomainDispatcherApplication(create_backend_app)
lock = threading.Lock()
state = {"writes_left": None, "uploaded": 0}


def etag_of(generation):
    return '"%032x"' % int(generation)


def generation_of(etag):
    return str(int(etag.strip('"').split("-")[0], 16))


def as_gcs(environ, start_response):
    """Gives conditions on generations the form of conditions on ETags, and answers with generations."""
    # Moto would look for the service in it, and finds an empty token hard to read.
    environ["HTTP_AUTHORIZATION"] = "Bearer x"
    generation = environ.pop("HTTP_X_GOOG_IF_GENERATION_MATCH", None)
    if generation == "0":
        environ["HTTP_IF_NONE_MATCH"] = "*"
    elif generation is not None:
        environ["HTTP_IF_MATCH"] = etag_of(generation)

    def answer(status, headers, *rest):
        for name, value in list(headers):
            if name.lower() == "etag":
                headers.append(("x-goog-generation", generation_of(value)))
        return start_response(status, headers, *rest)

    return moto(environ, answer)


def application(environ, start_response):
    path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
    if path.startswith("/test/"):
        with lock:
            if method == "POST":
                left = path.rsplit("/", 1)[1]
                state["writes_left"] = int(left) if left.isdigit() else None
            body = json.dumps(state).encode()
        start_response("200 OK", [("Content-Type", "application/json")])
        return [body]
    if method in ("PUT", "POST"):
        with lock:
            if state["writes_left"] is not None:
                if state["writes_left"] == 0:
                    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                    start_response("503 Service Unavailable", [("Content-Length", "0")])
                    return [b""]
                state["writes_left"] -= 1
            if method == "PUT" and "/blobs/" in path:
                state["uploaded"] += int(environ.get("CONTENT_LENGTH") or 0)
    return as_gcs(environ, start_response) if GCS else moto(environ, start_response)


server = make_server("127.0.0.1", 0, application, threaded=True)
print(json.dumps({"url": "http://127.0.0.1:%d" % server.server_port}), flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
while os.read(0, 4096):
    pass
os._exit(0)
