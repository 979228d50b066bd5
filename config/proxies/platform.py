"""A stand-in for the platform, to try a proxy with: it shows what it is told of whoever asks. `python3 platform.py 8000`."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Shown(BaseHTTPRequestHandler):
    """Answers every GET with the headers that say whose request it is."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Show them."""
        told = sorted(f"{name.lower()}: {value}\n" for name, value in self.headers.items())
        body = "".join(line for line in told if line.startswith("accessguard")).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Shown).serve_forever()
