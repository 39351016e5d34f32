"""Pages of a test, served on a free port."""

import threading
from http.server import ThreadingHTTPServer


def serve(handler):
    """Serves for as long as the test runs; answers the port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]
