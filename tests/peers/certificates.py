"""Certificates for servers on 127.0.0.1, each with an authority of its own that a client can be told to trust."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


def certified(ca_file: Path) -> ssl.SSLContext:
    """A new certificate, whose authority is written to this file."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(ca_file))
    return context
